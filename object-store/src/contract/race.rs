//! What many callers at once can see.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::task::JoinHandle;

use super::{Extent, read};
use crate::error::ObjectStoreError;
use crate::payload::Payload;
use crate::store::{GetRange, ObjectStore};

pub(super) async fn of_many_writers_one_creates_the_object(store: &Arc<dyn ObjectStore>, extent: Extent) {
    for round in 0..extent.rounds {
        let key = format!("race/put/{round}");
        let writers: Vec<JoinHandle<bool>> = (0..extent.writers)
            .map(|writer| {
                let (store, key) = (Arc::clone(store), key.clone());
                tokio::spawn(async move {
                    let payload = Payload::from(Bytes::from(format!("writer {writer:04}").repeat(100)));
                    match store.put_if_absent(&key, payload).await {
                        Ok(()) => true,
                        Err(ObjectStoreError::AlreadyExists { .. }) => false,
                        Err(error) => panic!("{key}: {error:?}"),
                    }
                })
            })
            .collect();
        let winner = only_winner(writers, &key).await;
        assert_eq!(read(&**store, &key).await, format!("writer {winner:04}").repeat(100));
    }
}

pub(super) async fn of_many_swappers_one_moves_each_version(store: &Arc<dyn ObjectStore>, extent: Extent) {
    let key = "race/swap".to_owned();
    let mut expected = None;
    for round in 0..extent.rounds {
        let swappers: Vec<JoinHandle<bool>> = (0..extent.writers)
            .map(|writer| {
                let (store, key, expected) = (Arc::clone(store), key.clone(), expected.clone());
                tokio::spawn(async move {
                    let bytes = Bytes::from(format!("{round} {writer}"));
                    match store.compare_and_swap(&key, expected, bytes).await {
                        Ok(_) => true,
                        Err(ObjectStoreError::VersionMismatch { .. }) => false,
                        Err(error) => panic!("{key}: {error:?}"),
                    }
                })
            })
            .collect();
        let winner = only_winner(swappers, &key).await;
        let (bytes, version) = store.get(&key, GetRange::WholeUpTo(99)).await.expect("somebody won");
        assert_eq!(bytes, format!("{round} {winner}"));
        expected = Some(version);
    }
}

/// Read, add one, swap, and again on a mismatch: as users of the verb do.
pub(super) async fn a_counter_loses_no_increment(store: &Arc<dyn ObjectStore>, extent: Extent) {
    let key = "race/counter";
    let increments = extent.rounds.div_ceil(4 * extent.writers);
    store.compare_and_swap(key, None, Bytes::from_static(b"0")).await.expect("the key is free");
    let counting = (0..extent.writers).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            for _ in 0..increments {
                while !increment(&*store, key).await {}
            }
        })
    });
    for counted in join_all(counting).await {
        counted.expect("no writer panics");
    }
    assert_eq!(read(&**store, key).await, (increments * extent.writers).to_string());
}

async fn increment(store: &dyn ObjectStore, key: &str) -> bool {
    let (bytes, version) = store.get(key, GetRange::WholeUpTo(99)).await.expect("the counter is there");
    let count: u64 = std::str::from_utf8(&bytes).expect("digits").parse().expect("a number");
    match store.compare_and_swap(key, Some(version), Bytes::from((count + 1).to_string())).await {
        Ok(_) => true,
        Err(ObjectStoreError::VersionMismatch { .. }) => false,
        Err(error) => panic!("{key}: {error:?}"),
    }
}

async fn only_winner(tasks: Vec<JoinHandle<bool>>, key: &str) -> usize {
    let won = join_all(tasks).await.into_iter().map(|result| result.expect("no task panics"));
    let winners: Vec<usize> = won.enumerate().filter(|(_, won)| *won).map(|(writer, _)| writer).collect();
    assert_eq!(winners.len(), 1, "exactly one wins {key}, not {winners:?}");
    winners[0]
}
