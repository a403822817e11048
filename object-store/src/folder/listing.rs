//! Listing a folder in the byte order of keys.

use std::fs;
use std::io;
use std::path::Path;

use crate::store::{ListPage, ListedObject};

/// One page of the objects below `root`.
pub(super) fn page(root: &Path, prefix: &str, start_after: &str, limit: usize) -> io::Result<ListPage> {
    let mut walk = Walk { root, prefix, start_after, limit, page: ListPage::default() };
    walk.folder("")?;
    Ok(walk.page)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    start_after: &'a str,
    limit: usize,
    page: ListPage,
}

/// Something in a folder: an object with its size, or a folder, whose key ends with a slash.
struct Entry {
    key: String,
    size: Option<u64>,
}

impl Walk<'_> {
    /// Walks the folder whose keys begin with `folder` (empty, or ending with a slash). A folder is sorted as its name with
    /// the slash, since that is how the keys in it go on: so `a-b` comes before `a/b`.
    fn folder(&mut self, folder: &str) -> io::Result<()> {
        let mut entries = self.entries(folder)?;
        entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        for Entry { key, size } in entries {
            match size {
                Some(_) if self.page.objects.len() == self.limit => self.page.more = true,
                Some(size) => self.page.objects.push(ListedObject { key, size }),
                None => self.folder(&key)?,
            }
            if self.page.more {
                break;
            }
        }
        Ok(())
    }

    fn entries(&self, folder: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let read = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
            read => read?,
        };
        for entry in read {
            let entry = entry?;
            // Names that no key has are not ours.
            let Some(name) =
                entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned)
            else {
                continue;
            };
            let metadata = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let (key, size) = match metadata.is_dir() {
                true => (format!("{folder}{name}/"), None),
                false => (format!("{folder}{name}"), Some(metadata.len())),
            };
            if self.wants(&key, size.is_none()) {
                entries.push(Entry { key, size });
            }
        }
        Ok(entries)
    }

    /// Whether an object is on the page, as far as its key says, or a folder may hold one that is.
    fn wants(&self, key: &str, is_folder: bool) -> bool {
        let prefixed = key.starts_with(self.prefix) || (is_folder && self.prefix.starts_with(key));
        let after = key > self.start_after || (is_folder && self.start_after.starts_with(key));
        prefixed && after
    }
}
