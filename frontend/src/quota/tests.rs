use carnax_core::id::TopicId;
use carnax_core::quota::Quotas;
use carnax_platform::clock::SystemClock;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const MIB: u64 = 1024 * 1024;

#[derive(Debug)]
struct Shop {
    keeper: QuotaKeeper,
}

impl Shop {
    fn new() -> Self {
        Self { keeper: QuotaKeeper::new(Arc::new(SystemClock::new()), Arc::new(Metrics::new())) }
    }

    fn token(&self, name: &str, quotas: Quotas) -> TokenId {
        let token = name.parse().unwrap();
        self.keeper.know(&token, &quotas);
        token
    }
}

fn topic(number: u8, quotas: Quotas) -> Topic {
    let gone = Topic::gone("t".parse().unwrap());
    Topic { id: TopicId::from_bytes([number; 16]), quotas, ..gone }
}

fn open() -> Topic {
    topic(u8::MAX, Quotas::default())
}

fn produce_bytes(per_second: u64) -> Quotas {
    Quotas { produce_bytes_per_second: Some(per_second), ..Quotas::default() }
}

fn seconds(problem: &Problem) -> u64 {
    assert_eq!(problem.code, ErrorCode::TooManyRequests);
    problem.facts.retry_after_seconds.unwrap()
}

/// Clients that ask for ten times their quota get it, to a tenth; whoever has none, or another one, loses nothing.
#[tokio::test(start_paused = true)]
async fn a_token_at_ten_times_its_quota_gets_its_quota_and_others_are_untouched() {
    let shop = Shop::new();
    let greedy = shop.token("greedy", produce_bytes(MIB));
    let modest = shop.token("modest", produce_bytes(MIB));
    let (free, topic) = ("free".parse().unwrap(), open());
    let (start, span) = (Instant::now(), Duration::from_secs(60));
    let (mut got, mut refused) = (0, 0);
    while start.elapsed() < span {
        for _ in 0..10 {
            match shop.keeper.produce(Some(&greedy), [(&topic, MIB / 10)]) {
                Ok(()) => got += MIB / 10,
                Err(_) => refused += 1,
            }
        }
        shop.keeper.produce(Some(&modest), [(&topic, MIB / 11)]).unwrap();
        shop.keeper.produce(Some(&free), [(&topic, 100 * MIB)]).unwrap();
        shop.keeper.produce(None, [(&topic, 100 * MIB)]).unwrap();
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let share = got as f64 / (span.as_secs() * MIB) as f64;
    assert!((0.9..=1.1).contains(&share) && refused > 4_000, "{share} of the quota, {refused} refused");
}

/// Whoever waits as long as a refusal says is not refused a second time, and still gets all of the quota.
#[tokio::test(start_paused = true)]
async fn whoever_waits_as_told_gets_all_of_the_quota_however_large_the_requests() {
    for request in [1_000, MIB / 10, MIB, 5 * MIB] {
        let shop = Shop::new();
        let token = shop.token("patient", produce_bytes(MIB));
        let (start, mut got) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(300) {
            if let Err(problem) = shop.keeper.produce(Some(&token), [(&open(), request)]) {
                tokio::time::advance(Duration::from_secs(seconds(&problem))).await;
                shop.keeper.produce(Some(&token), [(&open(), request)]).unwrap();
            }
            got += request;
        }
        let share = got as f64 / (start.elapsed().as_secs_f64() * MIB as f64);
        assert!((0.9..=1.1).contains(&share), "requests of {request} bytes get {share} of the quota");
    }
}

/// An append to two topics counts against both or none.
#[tokio::test(start_paused = true)]
async fn a_refused_request_counts_against_nothing() {
    let shop = Shop::new();
    let token = shop.token("writer", produce_bytes(100));
    let (tight, wide) = (topic(1, produce_bytes(10)), topic(2, produce_bytes(1_000)));
    shop.keeper.produce(None, [(&tight, 10)]).unwrap();
    for _ in 0..1_000 {
        let refused = shop.keeper.produce(Some(&token), [(&tight, 30), (&wide, 30)]).unwrap_err();
        assert!(refused.detail.starts_with("topic t has used up its quota of 10 bytes"), "{refused}");
    }
    shop.keeper.produce(Some(&token), [(&wide, 1_000)]).unwrap();
    let refused = shop.keeper.produce(Some(&token), [(&open(), 1)]).unwrap_err();
    assert!(refused.detail.starts_with("access token writer"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_counted_one_by_one() {
    let shop = Shop::new();
    let quotas = Quotas { fetch_requests_per_second: Some(5), ..Quotas::default() };
    let (token, topic) = (shop.token("reader", quotas), open());
    let answers: Vec<_> = (0..6).map(|_| shop.keeper.fetch_request(Some(&token), &topic).is_ok()).collect();
    assert_eq!(answers, [true, true, true, true, true, false]);
    tokio::time::advance(Duration::from_millis(200)).await;
    shop.keeper.fetch_request(Some(&token), &topic).unwrap();
    assert_eq!(seconds(&shop.keeper.fetch_request(Some(&token), &topic).unwrap_err()), 1);
    shop.keeper.produce(Some(&token), [(&open(), MIB)]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_fetched_is_paid_for_before_more_is_read() {
    let shop = Shop::new();
    let quotas = Quotas { fetch_bytes_per_second: Some(1_000), ..Quotas::default() };
    let (token, limited) = (shop.token("reader", quotas), topic(1, quotas));
    let narrow = topic(2, Quotas { fetch_bytes_per_second: Some(10), ..Quotas::default() });
    assert_eq!(shop.keeper.fetch_bytes(None, &open()).unwrap(), u64::MAX);
    assert_eq!(shop.keeper.fetch_bytes(Some(&token), &limited).unwrap(), 1_000);
    assert_eq!(shop.keeper.fetch_bytes(Some(&token), &narrow).unwrap(), 10);
    shop.keeper.fetched(Some(&token), &limited, 8_000);
    assert_eq!(seconds(&shop.keeper.fetch_bytes(None, &limited).unwrap_err()), 8);
    assert_eq!(seconds(&shop.keeper.fetch_bytes(Some(&token), &narrow).unwrap_err()), 8);
    // A request that is refused for them is not counted.
    let once = topic(1, Quotas { fetch_requests_per_second: Some(1), ..quotas });
    for _ in 0..5 {
        assert_eq!(seconds(&shop.keeper.fetch_request(None, &once).unwrap_err()), 8);
    }
    tokio::time::advance(Duration::from_secs(8)).await;
    shop.keeper.fetch_bytes(Some(&token), &limited).unwrap();
    shop.keeper.fetch_request(None, &once).unwrap();
}

/// Quotas are changed while they are in use: what is owed is paid at the new speed.
#[tokio::test(start_paused = true)]
async fn a_changed_quota_holds_at_once() {
    let shop = Shop::new();
    let token = shop.token("writer", produce_bytes(10));
    shop.keeper.produce(Some(&token), [(&open(), 1_000)]).unwrap();
    assert_eq!(seconds(&shop.keeper.produce(Some(&token), [(&open(), 1)]).unwrap_err()), 100);
    shop.keeper.know(&token, &produce_bytes(1_000));
    assert_eq!(seconds(&shop.keeper.produce(Some(&token), [(&open(), 1)]).unwrap_err()), 1);
    shop.keeper.know(&token, &produce_bytes(0));
    assert_eq!(seconds(&shop.keeper.produce(Some(&token), [(&open(), 1)]).unwrap_err()), 3_600);
    shop.keeper.know(&token, &Quotas::default());
    shop.keeper.produce(Some(&token), [(&open(), 1_000)]).unwrap();
}

/// Many topics with quotas take a bounded room, and those that owe something are never forgotten for it.
#[tokio::test(start_paused = true)]
async fn buckets_that_owe_nothing_make_room() {
    let shop = Shop::new();
    let owing = topic(0, produce_bytes(1));
    shop.keeper.produce(None, [(&owing, 1_000_000)]).unwrap();
    for round in 0..8u128 {
        for number in 0..(BUCKETS_MAX as u128) {
            let id = TopicId::from_bytes((1 + number + round * 1_000_000).to_be_bytes());
            let other = Topic { id, ..topic(1, produce_bytes(1_000)) };
            shop.keeper.produce(None, [(&other, 1)]).unwrap();
        }
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    let kept = shop.keeper.ledger().buckets.len();
    assert!(kept <= 2 * BUCKETS_MAX, "{kept}");
    assert!(shop.keeper.produce(None, [(&owing, 1)]).is_err());
}

proptest! {
    /// Whatever is used when: before its last request, a bucket let no more through than what flowed in and a second's worth.
    #[test]
    fn a_bucket_gives_no_more_than_flows_in(
        rate in 1..1_000_000_000_000_u64,
        steps in prop::collection::vec((0..3_000_u64, 0..100_000_u64), 1..60),
    ) {
        let start = Duration::from_secs(1);
        let (mut bucket, mut now, mut used) = (Bucket::default(), start, 0u128);
        bucket.set_rate(rate, now);
        for (millis, worth) in steps {
            now += Duration::from_millis(millis);
            if bucket.wait(now).is_zero() {
                let flowed = u128::from(rate) * ((now - start).as_millis() + 1_000) / 1_000;
                // Each charge is rounded down to a nanosecond.
                let rounding = 60 * (u128::from(rate) / 1_000_000_000 + 1);
                prop_assert!(used <= flowed + rounding, "{used} were used, {flowed} flowed in");
                let amount = rate / 1_000 * worth;
                bucket.charge(amount, now);
                used += u128::from(amount);
            }
        }
    }
}
