//! A request body that hands out the chunks of a payload without copying them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::payload::Payload;

#[derive(Debug)]
pub(super) struct ChunkBody {
    payload: Payload,
    next: usize,
    left: u64,
}

impl ChunkBody {
    pub(super) fn new(payload: Payload) -> Self {
        let left = payload.length();
        Self { payload, next: 0, left }
    }
}

impl Body for ChunkBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        while let Some(chunk) = self.payload.chunks().get(self.next).cloned() {
            self.next += 1;
            if !chunk.is_empty() {
                self.left -= chunk.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(chunk))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
