//! What one caller can see.

use bytes::Bytes;
use carnax_core::offset::ByteRange;

use super::{assert_mismatch, assert_not_found, put, read};
use crate::error::ObjectStoreError;
use crate::payload::Payload;
use crate::store::{DELETE_BATCH_KEYS_MAX, GetRange, LIST_PAGE_KEYS_MAX, ObjectStore};

pub(super) async fn an_object_is_put_once_and_read_back(store: &dyn ObjectStore) {
    let key = "put/once";
    assert_not_found(&store.head(key).await);
    assert_not_found(&store.get(key, GetRange::WholeUpTo(9)).await);

    let chunks = vec![Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"object")];
    let payload = Payload::new(chunks);
    assert_eq!(payload.crc32c(), crc32c::crc32c(b"one object"));
    store.put_if_absent(key, payload.clone()).await.expect("the key is free");

    let head = store.head(key).await.expect("it was put");
    assert_eq!((head.size, head.crc32c), (10, Some(payload.crc32c())));
    let (bytes, version) = store.get(key, GetRange::WholeUpTo(10)).await.expect("it was put");
    assert_eq!((&bytes[..], &version), (&b"one object"[..], &head.version));
    let refused = store.get(key, GetRange::WholeUpTo(9)).await;
    assert!(matches!(refused, Err(ObjectStoreError::TooLarge { size: 10, limit: 9, .. })), "{refused:?}");

    for again in [payload, Payload::from(Bytes::from_static(b"other"))] {
        let refused = store.put_if_absent(key, again).await;
        assert!(matches!(refused, Err(ObjectStoreError::AlreadyExists { .. })), "{refused:?}");
    }
    assert_eq!(read(store, key).await, "one object", "a refused put changes nothing");
    assert_eq!(store.head(key).await.expect("it was put").version, version);

    put(store, "put/empty", b"").await;
    let head = store.head("put/empty").await.expect("it was put");
    assert_eq!((head.size, head.crc32c), (0, Some(0)));
    assert_eq!(read(store, "put/empty").await, "");
}

pub(super) async fn ranges_are_exact_or_refused(store: &dyn ObjectStore) {
    let key = "range/object";
    put(store, key, b"0123456789").await;
    let get = |start, length| store.get(key, ByteRange { start, length }.into());
    for (start, length, expected) in [(0, 10, "0123456789"), (0, 1, "0"), (3, 4, "3456"), (9, 1, "9")] {
        assert_eq!(get(start, length).await.expect("within the object").0, expected);
    }
    for (start, length) in [(0, 11), (9, 2), (10, 1), (1 << 40, 1), (0, u64::MAX), (5, 1 << 62)] {
        let refused = get(start, length).await;
        assert!(
            matches!(refused, Err(ObjectStoreError::ShortRead { size: 10, .. })),
            "{start}+{length} {refused:?}"
        );
    }
    for (start, length) in [(0, 0), (5, 0), (10, 0), (u64::MAX, 1)] {
        let refused = get(start, length).await;
        assert!(matches!(refused, Err(ObjectStoreError::Invalid { .. })), "{start}+{length} {refused:?}");
    }
    assert_not_found(&store.get("range/absent", ByteRange { start: 0, length: 1 }.into()).await);
}

pub(super) async fn a_swap_needs_the_version_that_it_expects(store: &dyn ObjectStore) {
    let key = "swap/object";
    let swap =
        |expected, bytes: &'static [u8]| store.compare_and_swap(key, expected, Bytes::from_static(bytes));
    let first = swap(None, b"first").await.expect("the key is free");
    assert_mismatch(&swap(None, b"taken").await);
    let (bytes, version) = store.get(key, GetRange::WholeUpTo(99)).await.expect("it was swapped in");
    assert_eq!((&bytes[..], &version), (&b"first"[..], &first));
    let second = swap(Some(first.clone()), b"second").await.expect("the version is right");
    assert_ne!(first, second);
    assert_mismatch(&swap(Some(first), b"late").await);
    let third = swap(Some(second.clone()), b"third3").await.expect("the version is right");
    assert_ne!(second, third);
    let head = store.head(key).await.expect("it was swapped in");
    assert_eq!((head.size, &head.version), (6, &third));
    assert_eq!(read(store, key).await, "third3");

    let deleted = store.delete_many(&[key.to_owned()]).await;
    assert!(matches!(deleted[..], [Ok(())]), "{deleted:?}");
    // What is absent is at no version.
    assert_mismatch(&swap(Some(third), b"gone").await);
    swap(None, b"anew").await.expect("the key is free again");

    put(store, "swap/put", b"put").await;
    let version = store.head("swap/put").await.expect("it was put").version;
    let swapped = store.compare_and_swap("swap/put", Some(version), Bytes::from_static(b"swapped")).await;
    assert_eq!(
        store.head("swap/put").await.expect("it is there").version,
        swapped.expect("the version is right")
    );
}

pub(super) async fn pages_follow_the_byte_order_of_keys(store: &dyn ObjectStore) {
    let mut keys: Vec<String> =
        ["list/a", "list/a-b", "list/a/b", "list/a/b-", "list/a0", "list/b/c/d", "list/ü", "list2", "lisT/x"]
            .map(str::to_owned)
            .to_vec();
    // A key is not also a folder.
    keys.remove(0);
    for key in &keys {
        put(store, key, b"12345").await;
    }
    keys.sort();
    for prefix in ["list", "list/", "list/a", "list/a/", "list/a/b-", "list/b/c/", "list2", "nothing/"] {
        let expected: Vec<&String> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
        for limit in [1, 2, 3, LIST_PAGE_KEYS_MAX] {
            let (mut listed, mut after) = (Vec::new(), String::new());
            loop {
                let page = store.list(prefix, &after, limit).await.expect("a list");
                assert!(page.objects.len() <= limit && page.objects.iter().all(|object| object.size == 5));
                let Some(last) = page.objects.last() else { break assert!(!page.more) };
                after.clone_from(&last.key);
                listed.extend(page.objects.into_iter().map(|object| object.key));
                if !page.more {
                    break;
                }
            }
            assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{prefix} by {limit}");
        }
    }
    let page = store.list("list/", "list/a/", 2).await.expect("a list");
    let found: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(found, ["list/a/b", "list/a/b-"], "a start is any text, and itself not listed");
    assert_eq!(store.list("list/", "list/zz", 9).await.expect("a list").objects.len(), 1, "ü is after z");
    assert!(store.list("list/", "m", 9).await.expect("a list").objects.is_empty());
    for limit in [0, LIST_PAGE_KEYS_MAX + 1] {
        assert!(matches!(store.list("", "", limit).await, Err(ObjectStoreError::Invalid { .. })));
    }
}

pub(super) async fn odd_keys_are_kept_and_bad_ones_refused(store: &dyn ObjectStore) {
    let long = format!("odd/{}/{}", "n".repeat(255), "m".repeat(255));
    let odd = [
        "odd/a b",
        "odd/a+b",
        "odd/a%2Fb",
        "odd/ä€🦀",
        "odd/?x=1&y#z",
        "odd/'\"<>&;:@$*(!)~",
        "odd/a..b",
        &long,
    ];
    for key in odd {
        put(store, key, b"odd").await;
        assert_eq!(read(store, key).await, "odd", "{key}");
    }
    let mut sorted: Vec<&str> = odd.to_vec();
    sorted.sort_unstable();
    let page = store.list("odd/", "", LIST_PAGE_KEYS_MAX).await.expect("a list");
    assert_eq!(page.objects.iter().map(|object| object.key.as_str()).collect::<Vec<_>>(), sorted);
    let deleted = store.delete_many(&odd.map(str::to_owned)).await;
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    assert!(store.list("odd/", "", 9).await.expect("a list").objects.is_empty());

    let too_long = "k".repeat(256);
    for key in [
        "",
        "/",
        "/etc/passwd",
        "../outside",
        "bad/../../outside",
        "bad//key",
        "bad/",
        "a\0b",
        ".carnax/x",
        &too_long,
    ] {
        let payload = Payload::from(Bytes::from_static(b"bad"));
        let swap = store.compare_and_swap(key, None, Bytes::new());
        let deleted = store.delete_many(&[key.to_owned()]).await;
        for refused in [
            store.put_if_absent(key, payload).await.err(),
            swap.await.err(),
            store.get(key, GetRange::WholeUpTo(9)).await.err(),
            store.head(key).await.err(),
            deleted.into_iter().next().and_then(Result::err),
        ] {
            assert!(matches!(refused, Some(ObjectStoreError::Invalid { .. })), "{key:?} {refused:?}");
        }
    }
}

pub(super) async fn deleting_is_idempotent_and_answers_for_each_key(store: &dyn ObjectStore) {
    let keys: Vec<String> = (0..5).map(|number| format!("delete/{number}")).collect();
    for key in &keys {
        put(store, key, b"x").await;
    }
    let mut doomed: Vec<String> =
        (0..=DELETE_BATCH_KEYS_MAX).map(|number| format!("delete/absent/{number}")).collect();
    doomed.insert(0, keys[1].clone());
    doomed.insert(500, "delete//bad".to_owned());
    doomed.push(keys[3].clone());
    let results = store.delete_many(&doomed).await;
    assert_eq!(results.len(), doomed.len());
    for (key, result) in doomed.iter().zip(&results) {
        assert_eq!(result.is_ok(), key != "delete//bad", "{key} {result:?}");
    }
    let left = store.list("delete/", "", 9).await.expect("a list").objects;
    assert_eq!(left.iter().map(|object| &object.key).collect::<Vec<_>>(), [&keys[0], &keys[2], &keys[4]]);
    assert_not_found(&store.head(&keys[1]).await);
    put(store, &keys[1], b"again").await;
    assert_eq!(read(store, &keys[1]).await, "again");
    assert!(store.delete_many(&[]).await.is_empty());
}

pub(super) async fn large_objects_are_whole(store: &dyn ObjectStore, size: usize) {
    let key = "large/object";
    let mut bytes = vec![0; size];
    let mut value = 1_u32;
    for byte in &mut bytes {
        value = value.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = value.to_be_bytes()[0];
    }
    let bytes = Bytes::from(bytes);
    let chunks = (0..size).step_by(100_000).map(|start| bytes.slice(start..size.min(start + 100_000)));
    let payload = Payload::new(chunks.collect());
    store.put_if_absent(key, payload.clone()).await.expect("the key is free");
    let head = store.head(key).await.expect("it was put");
    assert_eq!((head.size, head.crc32c), (size as u64, Some(payload.crc32c())));
    assert!(read(store, key).await == bytes, "the whole object");
    let (start, length) = (size / 3, size / 2);
    let range = ByteRange { start: start as u64, length: length as u64 };
    let (part, _) = store.get(key, range.into()).await.expect("within the object");
    assert!(part == bytes.slice(start..start + length), "a range of it");
}
