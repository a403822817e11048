use super::*;
use crate::contract;

async fn open(path: &Path) -> FolderStore {
    FolderStore::open(path).await.expect("a folder of our own")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_store_keeps_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    contract::check(Arc::new(open(folder.path()).await)).await;
    let left = fs::read_dir(folder.path().join(".carnax/incoming")).expect("our own folder").count();
    assert_eq!(left, 0, "no unpublished file stays behind");
}

#[tokio::test]
async fn opening_removes_what_dead_writers_left_but_not_what_living_ones_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let incoming = folder.path().join(".carnax/incoming");
    let first = open(folder.path()).await;
    fs::write(incoming.join("1-1"), "half an obj").expect("written");
    let second = open(folder.path()).await;
    assert!(incoming.join("1-1").exists(), "another store has the folder open");
    let hours_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 60 * 60);
    File::options()
        .write(true)
        .open(incoming.join("1-1"))
        .and_then(|file| file.set_modified(hours_ago))
        .expect("the time is set");
    drop(second);
    let second = open(folder.path()).await;
    assert!(!incoming.join("1-1").exists(), "no write takes hours");
    fs::write(incoming.join("1-2"), "half").expect("written");
    drop((first, second));
    let third = open(folder.path()).await;
    assert!(!incoming.join("1-2").exists(), "nobody else had it open");
    assert!(third.list("", "", 9).await.expect("a list").objects.is_empty(), "our own files are no objects");
}

#[tokio::test]
async fn a_key_that_is_a_folder_of_another_is_refused_and_reads_as_absent() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    let payload = || Payload::from(Bytes::from_static(b"x"));
    store.put_if_absent("a/b", payload()).await.expect("the key is free");
    assert!(matches!(store.put_if_absent("a/b/c", payload()).await, Err(ObjectStoreError::Invalid { .. })));
    assert!(matches!(store.put_if_absent("a", payload()).await, Err(ObjectStoreError::Invalid { .. })));
    assert!(matches!(store.head("a/b/c").await, Err(ObjectStoreError::NotFound { .. })));
    assert!(matches!(store.head("a").await, Err(ObjectStoreError::NotFound { .. })));
    assert!(matches!(store.get("a", GetRange::WholeUpTo(9)).await, Err(ObjectStoreError::NotFound { .. })));
    let deleted = store.delete_many(&["a".to_owned(), "a/b/c".to_owned()]).await;
    assert!(matches!(deleted[..], [Ok(()), Ok(())]), "{deleted:?}");
    assert!(store.head("a/b").await.is_ok());
}

#[tokio::test]
async fn a_path_that_is_no_folder_is_named_in_the_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "").expect("written");
    let error = FolderStore::open(&file).await.expect_err("a file is no folder");
    assert!(
        matches!(&error, ObjectStoreError::Misconfigured { detail, .. } if detail.contains("file")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_folder_that_somebody_removed_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path()).await;
    let payload = || Payload::from(Bytes::from_static(b"x"));
    store.put_if_absent("a/b", payload()).await.expect("the key is free");
    fs::remove_dir_all(folder.path().join("a")).expect("it is there");
    let failed = store.put_if_absent("a/c", payload()).await;
    assert!(matches!(failed, Err(ObjectStoreError::Unavailable { .. })), "{failed:?}");
    store.put_if_absent("a/c", payload()).await.expect("the folder is made again");
}
