//! The object store of a simulation: one host that keeps the objects, and clients that reach it over the simulated
//! network, so that requests and answers can be lost, late and cut like all others.

mod watched;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use carnax_core::metadata::{Call, Callers};
use carnax_core::offset::ByteRange;
use carnax_core::usage::StoreRequests;
use carnax_object_store::{
    FaultStore, GetRange, ListPage, ListedObject, ObjectHead, ObjectStore, ObjectStoreError, Payload,
    RequestCounter, StoreFuture, Verb, Version,
};
use carnax_platform::network::Network;
use carnax_platform::rpc::{CallError, Channel, ChannelSettings, Router, serve};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

pub(crate) use self::watched::Watched;
use crate::world::SimulatedNetwork;

/// Where the bucket listens.
pub(crate) const ADDRESS: &str = "bucket:9000";
/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// What the bucket host keeps; it outlives crashes of the host.
pub(crate) type Objects = Arc<FaultStore<Watched>>;

#[derive(Debug, Serialize, Deserialize)]
enum Request {
    PutIfAbsent { key: String, bytes: Bytes },
    CompareAndSwap { key: String, expected: Option<String>, bytes: Bytes },
    GetBytes { key: String, start: u64, length: u64 },
    GetWhole { key: String, limit: u64 },
    Head { key: String },
    List { prefix: String, start_after: String, limit: usize },
    DeleteMany { keys: Vec<String> },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Version(String),
    Object(Bytes, String),
    Head { size: u64, version: String, crc32c: Option<u32> },
    Page { objects: Vec<(String, u64)>, more: bool },
    Deleted(Vec<Result<(), Refusal>>),
    Refused(Refusal),
}

/// The errors of a store, as far as they say different things to a caller.
#[derive(Debug, Serialize, Deserialize)]
enum Refusal {
    NotFound,
    AlreadyExists,
    VersionMismatch,
    ShortRead(u64),
    TooLarge(u64),
    Throttled,
    OutcomeUnknown,
    Other(String),
}

impl Call for Request {
    const NAME: &'static str = "SimulatedBucket";
    const CALLERS: Callers = Callers::All;
    type Reply = Answer;
}

/// Runs the bucket host until it is crashed.
pub(crate) async fn run(objects: Objects) -> std::io::Result<()> {
    let listener = SimulatedNetwork.listen("0.0.0.0:9000").await?;
    let router = Router::new().unary(move |request: Request| {
        let objects = Arc::clone(&objects);
        async move { Ok(answer(&objects, request).await) }
    });
    serve(listener, router, std::future::pending()).await
}

async fn answer(objects: &Objects, request: Request) -> Answer {
    let answered = match request {
        Request::PutIfAbsent { key, bytes } => {
            objects.put_if_absent(&key, Payload::from(bytes)).await.map(|()| Answer::Done)
        }
        Request::CompareAndSwap { key, expected, bytes } => objects
            .compare_and_swap(&key, expected.map(Version::new), bytes)
            .await
            .map(|version| Answer::Version(version.as_str().to_owned())),
        Request::GetBytes { key, start, length } => {
            objects.get(&key, ByteRange { start, length }.into()).await.map(object)
        }
        Request::GetWhole { key, limit } => objects.get(&key, GetRange::WholeUpTo(limit)).await.map(object),
        Request::Head { key } => objects.head(&key).await.map(|head| Answer::Head {
            size: head.size,
            version: head.version.as_str().to_owned(),
            crc32c: head.crc32c,
        }),
        Request::List { prefix, start_after, limit } => {
            objects.list(&prefix, &start_after, limit).await.map(|page| Answer::Page {
                objects: page.objects.into_iter().map(|object| (object.key, object.size)).collect(),
                more: page.more,
            })
        }
        Request::DeleteMany { keys } => {
            let deleted = objects.delete_many(&keys).await;
            Ok(Answer::Deleted(
                deleted.into_iter().map(|deleted| deleted.map_err(|e| Refusal::from(&e))).collect(),
            ))
        }
    };
    answered.unwrap_or_else(|error| Answer::Refused(Refusal::from(&error)))
}

fn object((bytes, version): (Bytes, Version)) -> Answer {
    Answer::Object(bytes, version.as_str().to_owned())
}

impl From<&ObjectStoreError> for Refusal {
    fn from(error: &ObjectStoreError) -> Self {
        match error {
            ObjectStoreError::NotFound { .. } => Self::NotFound,
            ObjectStoreError::AlreadyExists { .. } => Self::AlreadyExists,
            ObjectStoreError::VersionMismatch { .. } => Self::VersionMismatch,
            ObjectStoreError::ShortRead { size, .. } => Self::ShortRead(*size),
            ObjectStoreError::TooLarge { size, .. } => Self::TooLarge(*size),
            ObjectStoreError::Throttled { .. } => Self::Throttled,
            ObjectStoreError::OutcomeUnknown { .. } => Self::OutcomeUnknown,
            other => Self::Other(other.to_string()),
        }
    }
}

/// A client of the bucket.
#[derive(Debug)]
pub(crate) struct RemoteStore {
    channel: Channel,
    requests: RequestCounter,
}

impl RemoteStore {
    pub(crate) fn new() -> std::io::Result<Self> {
        let settings = ChannelSettings::default();
        let channel = Channel::new(Arc::new(SimulatedNetwork), ADDRESS, &settings)?;
        Ok(Self { channel, requests: RequestCounter::default() })
    }

    async fn ask(&self, verb: Verb, key: &str, request: Request) -> Result<Answer, ObjectStoreError> {
        self.requests.count(verb);
        let key = key.to_owned();
        match self.channel.call(request, DEADLINE).await {
            Ok(Answer::Refused(refusal)) => Err(error(verb, key, refusal)),
            Ok(answer) => Ok(answer),
            Err(CallError::NoAnswer { reason, .. }) if verb.writes() => {
                Err(ObjectStoreError::OutcomeUnknown { verb, key, source: reason_of(reason) })
            }
            Err(failed) => {
                Err(ObjectStoreError::Unavailable { verb, key, source: reason_of(failed.to_string()) })
            }
        }
    }
}

fn reason_of(text: String) -> carnax_object_store::SharedError {
    Arc::new(std::io::Error::other(text))
}

fn error(verb: Verb, key: String, refusal: Refusal) -> ObjectStoreError {
    match refusal {
        Refusal::NotFound => ObjectStoreError::NotFound { key },
        Refusal::AlreadyExists => ObjectStoreError::AlreadyExists { key },
        Refusal::VersionMismatch => ObjectStoreError::VersionMismatch { key, expected: None },
        Refusal::ShortRead(size) => {
            ObjectStoreError::ShortRead { key, range: ByteRange { start: 0, length: 0 }, size }
        }
        Refusal::TooLarge(size) => ObjectStoreError::TooLarge { key, size, limit: 0 },
        Refusal::Throttled => {
            ObjectStoreError::Throttled { verb, key, source: reason_of("slow down".to_owned()) }
        }
        Refusal::OutcomeUnknown => {
            ObjectStoreError::OutcomeUnknown { verb, key, source: reason_of("answer lost".to_owned()) }
        }
        Refusal::Other(reason) => ObjectStoreError::Unavailable { verb, key, source: reason_of(reason) },
    }
}

/// The bucket said something that does not answer the question: a mistake in this file.
fn confused(answer: &Answer) -> ! {
    unreachable!("the bucket answers what it is asked, not {answer:?}")
}

impl ObjectStore for RemoteStore {
    fn put_if_absent<'a>(&'a self, key: &'a str, payload: Payload) -> StoreFuture<'a, ()> {
        let request = Request::PutIfAbsent { key: key.to_owned(), bytes: payload.to_bytes() };
        Box::pin(async move { self.ask(Verb::PutIfAbsent, key, request).await.map(drop) })
    }

    fn compare_and_swap<'a>(
        &'a self,
        key: &'a str,
        expected: Option<Version>,
        bytes: Bytes,
    ) -> StoreFuture<'a, Version> {
        let expected = expected.map(|version| version.as_str().to_owned());
        let request = Request::CompareAndSwap { key: key.to_owned(), expected, bytes };
        Box::pin(async move {
            match self.ask(Verb::CompareAndSwap, key, request).await? {
                Answer::Version(version) => Ok(Version::new(version)),
                other => confused(&other),
            }
        })
    }

    fn get<'a>(&'a self, key: &'a str, range: GetRange) -> StoreFuture<'a, (Bytes, Version)> {
        let key_text = key.to_owned();
        let request = match range {
            GetRange::Bytes(ByteRange { start, length }) => {
                Request::GetBytes { key: key_text, start, length }
            }
            GetRange::WholeUpTo(limit) => Request::GetWhole { key: key_text, limit },
        };
        Box::pin(async move {
            match self.ask(Verb::Get, key, request).await? {
                Answer::Object(bytes, version) => Ok((bytes, Version::new(version))),
                other => confused(&other),
            }
        })
    }

    fn head<'a>(&'a self, key: &'a str) -> StoreFuture<'a, ObjectHead> {
        Box::pin(async move {
            match self.ask(Verb::Head, key, Request::Head { key: key.to_owned() }).await? {
                Answer::Head { size, version, crc32c } => {
                    Ok(ObjectHead { size, version: Version::new(version), crc32c })
                }
                other => confused(&other),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str, start_after: &'a str, limit: usize) -> StoreFuture<'a, ListPage> {
        let request = Request::List { prefix: prefix.to_owned(), start_after: start_after.to_owned(), limit };
        Box::pin(async move {
            match self.ask(Verb::List, prefix, request).await? {
                Answer::Page { objects, more } => {
                    let objects = objects.into_iter().map(|(key, size)| ListedObject { key, size }).collect();
                    Ok(ListPage { objects, more })
                }
                other => confused(&other),
            }
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Vec<Result<(), ObjectStoreError>>> {
        Box::pin(async move {
            let prefix = keys.first().map_or("", String::as_str);
            match self.ask(Verb::DeleteMany, prefix, Request::DeleteMany { keys: keys.to_vec() }).await {
                Ok(Answer::Deleted(deleted)) => {
                    let named = |(key, deleted): (&String, Result<(), Refusal>)| {
                        deleted.map_err(|refusal| error(Verb::DeleteMany, key.clone(), refusal))
                    };
                    keys.iter().zip(deleted).map(named).collect()
                }
                Ok(other) => confused(&other),
                Err(failed) => keys.iter().map(|_| Err(failed.clone())).collect(),
            }
        })
    }

    fn take_requests(&self) -> StoreRequests {
        self.requests.take()
    }
}
