//! From a URL to a store.

use std::sync::Arc;

use crate::error::ObjectStoreError;
use crate::folder::FolderStore;
use crate::memory::MemoryStore;
use crate::s3::{S3Settings, S3Store};
use crate::store::ObjectStore;
use crate::url::ObjectStoreUrl;

/// What a user may tune beside the URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectStoreSettings {
    /// Whether the bucket stands in the path of an S3 request rather than in its host name: most servers that are not
    /// Amazon's want that.
    pub s3_path_style: bool,
}

/// Opens the store that a URL names. Whether a bucket exists and lets us in shows at the first call.
///
/// # Errors
/// [`ObjectStoreError::Misconfigured`] with what to change.
pub async fn open(
    url: &ObjectStoreUrl,
    settings: &ObjectStoreSettings,
) -> Result<Arc<dyn ObjectStore>, ObjectStoreError> {
    match url {
        ObjectStoreUrl::S3 { bucket, prefix } => {
            let settings = S3Settings { path_style: settings.s3_path_style, ..S3Settings::default() };
            Ok(Arc::new(S3Store::open(bucket, prefix, settings).await))
        }
        ObjectStoreUrl::Folder(path) => Ok(Arc::new(FolderStore::open(path).await?)),
        ObjectStoreUrl::Memory { name } => Ok(MemoryStore::named(name)),
    }
}
