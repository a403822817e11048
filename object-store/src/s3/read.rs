//! Gets, heads and lists.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::ChecksumMode;
use bytes::{Bytes, BytesMut};
use carnax_core::offset::ByteRange;

use super::S3Store;
use super::attempt::{Cause, Failed};
use crate::error::ObjectStoreError;
use crate::key::Version;
use crate::store::{GetRange, ListPage, ListedObject, ObjectHead, Verb};

/// No object reaches so far; servers read larger numbers in ways of their own.
const POSITION_MAX: u64 = 1 << 50;

impl S3Store {
    pub(super) async fn read(
        &self,
        key: &str,
        range: GetRange,
    ) -> Result<(Bytes, Version), ObjectStoreError> {
        let expected = match range {
            GetRange::Bytes(range) => range.length,
            GetRange::WholeUpTo(limit) => limit,
        };
        let tried = self.persist(expected, || self.get_once(key, range)).await;
        match (&tried.result, range) {
            (Err(Failed { cause: Cause::OutsideObject, .. }), GetRange::Bytes(range)) => {
                let size = self.describe(key).await?.size;
                Err(ObjectStoreError::ShortRead { key: key.to_owned(), range, size })
            }
            _ => tried.into_result(Verb::Get, key),
        }
    }

    async fn get_once(&self, key: &str, range: GetRange) -> Result<(Bytes, Version), Failed> {
        let get = self.client.get_object().bucket(&self.bucket).key(self.full_key(key));
        let mut answer = match range {
            GetRange::WholeUpTo(_) => get.send().await?,
            GetRange::Bytes(ByteRange { start, length }) => {
                let last = start.saturating_add(length - 1).min(POSITION_MAX.max(start));
                get.range(format!("bytes={start}-{last}")).send().await?
            }
        };
        let version = answer
            .e_tag
            .take()
            .map(Version::new)
            .ok_or_else(|| Failed::broken("the answer has no entity tag"))?;
        let range = promised(&answer, key, range)?;
        let bytes = collect(answer, range.length).await?;
        Ok((bytes, version))
    }

    pub(super) async fn describe(&self, key: &str) -> Result<ObjectHead, ObjectStoreError> {
        self.persist(0, || self.head_once(key)).await.into_result(Verb::Head, key)
    }

    async fn head_once(&self, key: &str) -> Result<ObjectHead, Failed> {
        let head = self.client.head_object().bucket(&self.bucket).key(self.full_key(key));
        let answer = head.checksum_mode(ChecksumMode::Enabled).send().await?;
        let size = answer.content_length.and_then(|length| u64::try_from(length).ok());
        match (size, answer.e_tag) {
            (Some(size), Some(tag)) => {
                let crc32c = answer.checksum_crc32_c.as_deref().and_then(decode_checksum);
                Ok(ObjectHead { size, version: Version::new(tag), crc32c })
            }
            _ => Err(Failed::broken("the answer has no length or no entity tag")),
        }
    }

    pub(super) async fn page(
        &self,
        prefix: &str,
        start_after: &str,
        limit: usize,
    ) -> Result<ListPage, ObjectStoreError> {
        let tried = self.persist(0, || self.list_once(prefix, start_after, limit)).await;
        tried.into_result(Verb::List, prefix)
    }

    async fn list_once(&self, prefix: &str, start_after: &str, limit: usize) -> Result<ListPage, Failed> {
        let list = self.client.list_objects_v2().bucket(&self.bucket).prefix(self.full_key(prefix));
        let list = list.max_keys(i32::try_from(limit).unwrap_or(i32::MAX));
        let list = if start_after.is_empty() { list } else { list.start_after(self.full_key(start_after)) };
        let answer = list.send().await?;
        let mut objects = Vec::new();
        for object in answer.contents() {
            // A name without our prefix, or with nothing behind it (a console's folder mark), is none of our objects.
            let key =
                object.key().and_then(|key| key.strip_prefix(&self.prefix)).filter(|key| !key.is_empty());
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            if let (Some(key), Some(size)) = (key, size) {
                objects.push(ListedObject { key: key.to_owned(), size });
            }
        }
        if objects.len() > limit || !objects.is_sorted_by(|one, other| one.key < other.key) {
            return Err(Failed::broken("the listing is not sorted, or longer than asked for"));
        }
        Ok(ListPage { more: answer.is_truncated().unwrap_or(false), objects })
    }
}

/// The bytes that an answer is going to bring, if they are the ones that were asked for.
fn promised(answer: &GetObjectOutput, key: &str, range: GetRange) -> Result<ByteRange, Failed> {
    let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
    let length = length.ok_or_else(|| Failed::broken("the answer has no length"))?;
    let (start, size) = match answer.content_range() {
        Some(text) => {
            parse_content_range(text).ok_or_else(|| Failed::broken("the answer has a wrong range"))?
        }
        None => (0, length),
    };
    let wanted = range.resolve(key, size)?;
    if (start, length) != (wanted.start, wanted.length) {
        return Err(Failed::broken("the answer has another range than asked for"));
    }
    Ok(wanted)
}

/// Reads the body into one piece; the length is already bounded by what the caller wants.
async fn collect(mut answer: GetObjectOutput, length: u64) -> Result<Bytes, Failed> {
    let length = usize::try_from(length).map_err(|_| Failed::broken("the object does not fit in memory"))?;
    let mut bytes = BytesMut::with_capacity(length);
    while let Some(chunk) = answer.body.next().await {
        let chunk = chunk.map_err(|error| Failed::broken(format!("the body broke off: {error}")))?;
        if chunk.len() > length - bytes.len() {
            return Err(Failed::broken("the body is longer than announced"));
        }
        if chunk.len() == length {
            return Ok(chunk);
        }
        bytes.extend_from_slice(&chunk);
    }
    match bytes.len() == length {
        true => Ok(bytes.freeze()),
        false => Err(Failed::broken("the body is shorter than announced")),
    }
}

/// First position and size of `bytes 3-6/10`.
fn parse_content_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, size.parse().ok()?))
}

/// A checksum of the whole object; what a multipart upload has is marked with a hyphen and no such checksum.
fn decode_checksum(text: &str) -> Option<u32> {
    let bytes = aws_smithy_types::base64::decode(text).ok()?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
