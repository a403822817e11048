//! Holds an object against its manifest. Pure.
//!
//! What merge, key compaction and restore wrote is looked at with their eyes: offsets may have holes, batches may be empty or
//! stamped with the time of their append. In return their batches have their final offsets.

use bytes::Bytes;
use carnax_core::metadata::{Manifest, ManifestSlice};
use carnax_core::offset::ByteRange;
use carnax_core::record::Batch;
use carnax_core::segment::{Footer, HEADER_BYTES, LocatedBatch, SegmentError, SliceEntry};

use super::report::{Checked, Problem, ProblemKind, Records};

/// Problems of one object that are told.
const OBJECT_PROBLEMS_MAX: usize = 100;

/// What was found in an object.
#[derive(Debug, Default)]
pub(super) struct Examined {
    pub(super) checked: Checked,
    pub(super) problems: Vec<Problem>,
}

/// Holds the slices of a manifest against the footer of its object.
pub(super) fn examine_footer(manifest: &Manifest, footer: &Result<Footer, SegmentError>) -> Examined {
    let mut examination = Examination::new(manifest);
    if let Some(footer) = examination.footer(footer) {
        for slice in &manifest.slices {
            let _batches = examination.slice(footer, slice);
        }
    }
    examination.done
}

/// Checks a whole object: every checksum, every slice of its manifest, every record in those.
pub(super) fn examine_object(manifest: &Manifest, object: &Bytes) -> Examined {
    let mut examination = Examination::new(manifest);
    let footer = Footer::parse(object, object.len() as u64);
    let Some(footer) = examination.footer(&footer) else { return examination.done };
    // The footer's own reader has found magic and version in the last bytes.
    if object.first_chunk::<HEADER_BYTES>() != object.last_chunk::<HEADER_BYTES>() {
        examination.damaged("its first bytes are not those of a segment".to_owned(), Vec::new());
    }
    for slice in footer.slices() {
        examination.checksum(slice, object);
    }
    for slice in &manifest.slices {
        for batch in examination.slice(footer, slice) {
            if let Err(reason) = examination.batch(object, &batch) {
                let records = Records::new(slice.on, batch.base_offset, batch.end_offset());
                examination.damaged(format!("batch at bytes {}: {reason}", batch.bytes), vec![records]);
            }
        }
    }
    examination.done
}

struct Examination<'a> {
    manifest: &'a Manifest,
    key: String,
    done: Examined,
}

impl<'a> Examination<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self { manifest, key: manifest.key.to_string(), done: Examined::default() }
    }

    fn add(&mut self, kind: ProblemKind, detail: String, records: Vec<Records>) {
        if self.done.problems.len() < OBJECT_PROBLEMS_MAX {
            self.done.problems.push(Problem { kind, key: self.key.clone(), detail, records });
        }
    }

    fn damaged(&mut self, detail: String, records: Vec<Records>) {
        self.add(ProblemKind::Damaged, detail, records);
    }

    /// The footer, if it can be read; otherwise all records of the object are lost.
    fn footer<'f>(&mut self, footer: &'f Result<Footer, SegmentError>) -> Option<&'f Footer> {
        match footer {
            Ok(footer) => Some(footer),
            Err(error) => {
                let problem = Problem::of(self.manifest, ProblemKind::Damaged, error.to_string());
                self.done.problems.push(problem);
                None
            }
        }
    }

    /// The batches of a slice of the manifest; none if the object has no such slice.
    fn slice<'f>(
        &mut self,
        footer: &'f Footer,
        slice: &ManifestSlice,
    ) -> impl Iterator<Item = LocatedBatch> + use<'f> {
        self.done.checked.slices += 1;
        let records = Records::new(slice.on, slice.base_offset, slice.end_offset);
        let view = footer.view(slice.on, slice.bytes, slice.base_offset);
        match &view {
            Err(error) => self.add(ProblemKind::Contradiction, error.to_string(), vec![records]),
            Ok(view) if view.end_offset() != slice.end_offset => {
                let detail = format!("batches in bytes {} end at offset {}", slice.bytes, view.end_offset());
                self.add(ProblemKind::Contradiction, detail, vec![records]);
            }
            Ok(_) => {}
        }
        view.into_iter().flat_map(|view| view.batches())
    }

    /// Compares the checksum of a slice, also of what no manifest refers to.
    fn checksum(&mut self, slice: &SliceEntry, object: &Bytes) {
        let computed = part(object, slice.bytes).map(|bytes| crc32c::crc32c(&bytes));
        if computed != Some(slice.crc32c) {
            let (on, bytes) = (slice.on, slice.bytes);
            self.damaged(
                format!("bytes {bytes} of partition {on} are not those that were written"),
                Vec::new(),
            );
        }
    }

    fn batch(&mut self, object: &Bytes, entry: &LocatedBatch) -> Result<(), String> {
        let mut bytes = part(object, entry.bytes).ok_or("it ends behind the object")?;
        let batch = Batch::parse_next(&mut bytes).map_err(|error| error.to_string())?;
        let batch = batch.filter(|_| bytes.is_empty()).ok_or("its length is another than in the footer")?;
        batch.verify_checksum().map_err(|error| error.to_string())?;
        if batch.offset_count() != entry.offset_count || batch.max_timestamp() != entry.max_timestamp {
            return Err("its header and the footer disagree".to_owned());
        }
        let base = batch.header().base_offset;
        if self.manifest.rewritten && base != entry.base_offset.as_i64() {
            return Err(format!("it says that its first offset is {base}"));
        }
        for record in batch.records().map_err(|error| error.to_string())? {
            record.map_err(|error| error.to_string())?;
            self.done.checked.records += 1;
        }
        self.done.checked.batches += 1;
        Ok(())
    }
}

fn part(object: &Bytes, range: ByteRange) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end()?).ok()?);
    (end <= object.len()).then(|| object.slice(start..end))
}
