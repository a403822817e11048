//! MessagePack with named fields in gRPC frames: fields may be added, and readers skip those that they do not know.

use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Encodes `E` and decodes `D`.
pub(super) struct MessagePack<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> MessagePack<E, D> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for MessagePack<E, D>
where
    E: Serialize + Send + 'static,
    D: DeserializeOwned + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<E: Serialize, D> Encoder for MessagePack<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        rmp_serde::encode::write_named(&mut buffer.writer(), &item)
            .map_err(|error| Status::internal(format!("message cannot be encoded: {error}")))
    }
}

impl<E, D: DeserializeOwned> Decoder for MessagePack<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        rmp_serde::from_slice(&message)
            .map(Some)
            .map_err(|error| Status::invalid_argument(format!("message cannot be decoded: {error}")))
    }
}
