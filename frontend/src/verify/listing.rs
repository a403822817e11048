//! Walks over everything in the bucket, many folders at a time.
//!
//! ```text
//!  … before │ 00/ │ between │ 01/ │ between │ … │ ff/ │ behind …        the folders of <incarnation>/segments/
//! ```

use std::sync::Arc;

use carnax_core::id::Incarnation;
use carnax_core::object_key::{SEGMENT_FOLDERS, segment_folder};
use carnax_object_store::{LIST_PAGE_KEYS_MAX, ListPage, ListedObject, ObjectStore, ObjectStoreError};
use futures::Stream;

/// A run of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// What all keys begin with.
    pub(super) prefix: String,
    /// Only greater keys.
    pub(super) after: String,
    /// Only smaller keys.
    pub(super) until: Option<String>,
    /// Keys with this prefix belong to another run.
    pub(super) without: Option<String>,
    /// Keys that are asked for at first: a run that is empty as a rule costs little.
    pub(super) first_page: usize,
}

/// Runs that have every key of the bucket once.
pub(super) fn runs(incarnation: Incarnation) -> Vec<Run> {
    let folders: Vec<String> =
        (0..SEGMENT_FOLDERS).map(|folder| segment_folder(incarnation, folder)).collect();
    let common = format!("{incarnation}/segments/");
    let (first, last) = (&folders[0], &folders[folders.len() - 1]);
    let rest = Run {
        prefix: String::new(),
        after: String::new(),
        until: Some(first.clone()),
        without: None,
        first_page: LIST_PAGE_KEYS_MAX,
    };
    let behind = Run { after: past(last), until: None, without: Some(last.clone()), ..rest.clone() };
    let folder = |folder: &String| Run { prefix: folder.clone(), until: None, ..rest.clone() };
    let between = |pair: &[String]| Run {
        prefix: common.clone(),
        after: past(&pair[0]),
        until: Some(pair[1].clone()),
        without: Some(pair[0].clone()),
        first_page: 1,
    };
    let folders = folders.iter().map(folder).chain(folders.windows(2).map(between));
    let folders: Vec<Run> = folders.collect();
    [rest, behind].into_iter().chain(folders).collect()
}

/// A text behind all keys of a folder that Carnax writes; the few others that it is before are left out by the run.
fn past(folder: &str) -> String {
    format!("{folder}~")
}

/// The pages of a run; the last one is marked.
pub(super) fn pages(
    store: Arc<dyn ObjectStore>,
    run: Run,
) -> impl Stream<Item = Result<(Vec<ListedObject>, bool), ObjectStoreError>> + Send {
    let begin = Some((run.after.clone(), run.first_page));
    futures::stream::try_unfold(begin, move |place| {
        let (store, run) = (Arc::clone(&store), run.clone());
        async move {
            let Some((after, limit)) = place else { return Ok(None) };
            let mut page = store.list(&run.prefix, &after, limit).await?;
            let next = run.take(&mut page).map(|after| (after, LIST_PAGE_KEYS_MAX));
            let last = next.is_none();
            Ok(Some(((page.objects, last), next)))
        }
    })
}

impl Run {
    /// Takes what belongs to the run out of a page; says where the next page begins, if there is one.
    fn take(&self, page: &mut ListPage) -> Option<String> {
        let next = page.objects.last().filter(|_| page.more).map(|last| last.key.clone());
        let inside = |key: &str| self.until.as_deref().is_none_or(|until| key < until);
        let next = next.filter(|last| inside(last));
        let elsewhere = |key: &str| self.without.as_deref().is_some_and(|folder| key.starts_with(folder));
        page.objects.retain(|object| inside(&object.key) && !elsewhere(&object.key));
        next
    }
}

#[cfg(test)]
mod tests {
    use carnax_object_store::MemoryStore;
    use proptest::prelude::*;

    use super::*;

    async fn walk(store: &MemoryStore) -> Vec<String> {
        let mut keys = Vec::new();
        for run in runs(Incarnation(1)) {
            let (mut after, mut limit) = (Some(run.after.clone()), run.first_page);
            while let Some(behind) = after {
                let mut page = store.list(&run.prefix, &behind, limit).await.unwrap();
                after = run.take(&mut page);
                limit = 2;
                keys.extend(page.objects.into_iter().map(|object| object.key));
            }
        }
        keys.sort();
        keys
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_key_is_in_one_run(
            names in proptest::collection::btree_set("(1|2|10|cluster)/(segments/(00|2f|2f~|2g|ff|zz)|merged/x)/[A-Z~0]{1,2}", 0..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let store = MemoryStore::new();
                for name in &names {
                    store.put_if_absent(name, bytes::Bytes::from_static(b"x").into()).await.unwrap();
                }
                assert_eq!(walk(&store).await, names.iter().cloned().collect::<Vec<_>>());
            });
        }
    }
}
