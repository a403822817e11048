use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::memory::MemoryStore;

fn payload() -> Payload {
    Payload::from(Bytes::from_static(b"bytes"))
}

#[tokio::test]
async fn a_store_without_faults_keeps_the_contract_and_counts() {
    let store = Arc::new(FaultStore::new(MemoryStore::new()));
    crate::contract::check(store.clone()).await;
    let before = store.calls_total();
    assert!(Verb::ALL.iter().all(|verb| store.calls(*verb) > 0));
    store.head("absent").await.expect_err("absent");
    assert_eq!(store.calls_total(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn scripted_faults_happen_in_order_and_tell_what_the_caller_can_know() {
    let store = FaultStore::new(MemoryStore::new());
    let hour = Duration::from_secs(3600);
    let faults = [Failure::Before, Failure::Throttled, Failure::Lost, Failure::After].map(Fault::fail);
    store.script(Verb::PutIfAbsent, faults);
    store.script(Verb::PutIfAbsent, [Fault::delay(hour)]);

    let put = || store.put_if_absent("k", payload());
    assert!(matches!(put().await, Err(ObjectStoreError::Unavailable { .. })));
    assert!(matches!(put().await, Err(ObjectStoreError::Throttled { .. })));
    assert!(matches!(put().await, Err(ObjectStoreError::OutcomeUnknown { .. })));
    assert!(matches!(store.head("k").await, Err(ObjectStoreError::NotFound { .. })), "lost means not done");
    assert!(matches!(put().await, Err(ObjectStoreError::OutcomeUnknown { .. })));
    assert_eq!(store.head("k").await.expect("done").size, 5);
    let begun = Instant::now();
    assert!(matches!(put().await, Err(ObjectStoreError::AlreadyExists { .. })));
    assert!(begun.elapsed() >= hour);
    assert_eq!(store.calls(Verb::PutIfAbsent), 5);

    store.script(Verb::Get, faults[2..].iter().copied());
    for _ in 0..2 {
        let read = store.get("k", GetRange::WholeUpTo(9)).await;
        assert!(
            matches!(read, Err(ObjectStoreError::Unavailable { .. })),
            "a read has no effect to be unsure of"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_faults() {
    let run = |seed| async move {
        let rates = FaultRates {
            before_per_mille: 100,
            throttled_per_mille: 100,
            lost_per_mille: 100,
            after_per_mille: 100,
            delay_max: Duration::from_millis(20),
        };
        let store = FaultStore::seeded(MemoryStore::new(), seed, rates);
        let (begun, mut seen) = (Instant::now(), Vec::new());
        for number in 0..200 {
            let result = store.put_if_absent(&format!("k{number}"), payload()).await;
            seen.push((begun.elapsed(), result.map_err(|error| error.to_string())));
        }
        store.set_rates(FaultRates::default());
        let listed = store.list("", "", 1_000).await.expect("no faults any more").objects.len();
        (seen, listed)
    };
    let (first, listed) = run(7).await;
    assert_eq!((first.clone(), listed), run(7).await);
    assert_ne!(first, run(8).await.0);
    let succeeded = first.iter().filter(|(_, result)| result.is_ok()).count();
    assert!((80..160).contains(&succeeded), "{succeeded} of 200");
    assert!(listed > succeeded, "some that failed were done");
}
