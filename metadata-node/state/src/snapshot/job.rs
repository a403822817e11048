//! The part of a snapshot that says how maintenance is getting on.

use std::io::{self, Write};

use carnax_core::id::LogIndex;
use carnax_core::limits;
use carnax_core::metadata::JobKind;
use carnax_core::object_key::SEGMENT_FOLDERS;
use carnax_core::time::Timestamp;
use imbl::OrdMap;

use super::frame::{Frame, JobsRow, SeatRow};
use super::read::{Checked, require};
use super::write::Frames;
use crate::State;
use crate::job::{Jobs, Lease, Pass, Seat};

/// Nothing while there is nothing to say, as before level 4.
pub(super) fn write(jobs: &Jobs, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let seats = jobs
        .seats
        .iter()
        .map(|(kind, seat)| (*kind, seat.lease.as_ref().map(lease_to_row), seat.last_success));
    if !is_default(jobs) {
        write_orphans(jobs, frames)?;
    }
    frames.put_rows(seats, Frame::Seats)
}

fn is_default(jobs: &Jobs) -> bool {
    Jobs { seats: OrdMap::new(), ..jobs.clone() } == Jobs::default()
}

fn write_orphans(jobs: &Jobs, frames: &mut Frames<'_, impl Write>) -> io::Result<()> {
    let Jobs { written, done_until, pass, lease, last_success, .. } = jobs;
    let lease = lease.as_ref().map(lease_to_row);
    frames.put(&Frame::Jobs(JobsRow {
        written: *written,
        done_until: *done_until,
        pass: pass.map(|pass| (pass.until, pass.folders_done)),
        lease,
        last_success: *last_success,
    }))
}

pub(super) fn read(state: &mut State, row: JobsRow) -> Checked {
    let JobsRow { written, done_until, pass, lease, last_success } = row;
    require(state.jobs == Jobs::default(), "maintenance twice")?;
    let times = [Some(written), Some(done_until), pass.map(|(until, _)| until), last_success];
    require(times.into_iter().flatten().all(|time| time <= state.log_time), "maintenance from the future")?;
    require(pass.is_none_or(|(_, done)| done <= SEGMENT_FOLDERS), "more folders than there are")?;
    let lease_is_sound = |(id, worker, _): &(_, String, _)| {
        *id <= state.applied && worker.len() <= limits::ADDRESS_BYTES_MAX && pass.is_some()
    };
    require(lease.as_ref().is_none_or(lease_is_sound), "a lease that was not given out")?;
    let pass = pass.map(|(until, folders_done)| Pass { until, folders_done });
    let lease = lease.map(|(id, worker, expires)| Lease { id, worker: worker.into(), expires });
    state.jobs = Jobs { written, done_until, pass, lease, last_success, ..Jobs::default() };
    Ok(())
}

pub(super) fn read_seat(state: &mut State, row: SeatRow) -> Checked {
    let (kind, lease, last_success) = row;
    let lease_is_sound =
        |(id, worker, _): &(_, String, _)| *id <= state.applied && worker.len() <= limits::ADDRESS_BYTES_MAX;
    require(lease.as_ref().is_none_or(lease_is_sound), "a lease that was not given out")?;
    require(last_success.is_none_or(|time| time <= state.log_time), "maintenance from the future")?;
    let lease = lease.map(|(id, worker, expires)| Lease { id, worker: worker.into(), expires });
    let first = state.jobs.seats.insert(kind, Seat { lease, last_success }).is_none();
    require(first && kind != JobKind::CollectOrphans, "a job twice")
}

fn lease_to_row(lease: &Lease) -> (LogIndex, String, Timestamp) {
    (lease.id, lease.worker.to_string(), lease.expires)
}
