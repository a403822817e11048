//! What happened in all worlds together.

use super::world::World;

/// How often what is rare happened, so that nobody takes these worlds for proof of what they never saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) worlds: usize,
    pub(super) merges_lost: usize,
    pub(super) rounds: usize,
    pub(super) rounds_lost: usize,
    pub(super) compacted_after_merge: usize,
    pub(super) pages: usize,
    pub(super) pages_deleted: usize,
    pub(super) deleted: usize,
    pub(super) retained: u64,
    /// Reads of what had died, within the grace period and after it.
    pub(super) read_dead: usize,
    pub(super) read_late: usize,
}

impl Seen {
    pub(super) fn add(&mut self, world: &World) {
        let (seen, rounds) = (&world.seen, &world.rounds);
        self.worlds += 1;
        self.merges_lost += seen.merges_lost;
        self.rounds += rounds.finished;
        self.rounds_lost += rounds.lost;
        self.compacted_after_merge += rounds.merged_slices;
        self.pages += world.paged;
        self.pages_deleted += seen.pages_deleted;
        self.deleted += seen.deleted;
        self.retained += seen.retained;
        self.read_dead += seen.read_dead;
        self.read_late += seen.read_late;
    }

    pub(super) fn assert_all(&self) {
        let Self { merges_lost, rounds, rounds_lost, compacted_after_merge, pages, .. } = *self;
        let Self { pages_deleted, deleted, retained, read_dead, read_late, .. } = *self;
        let counts = [
            merges_lost,
            rounds,
            rounds_lost,
            compacted_after_merge,
            pages,
            pages_deleted,
            deleted,
            read_dead,
        ];
        assert!(counts.into_iter().chain([read_late]).all(|count| count > 0) && retained > 0, "{self:?}");
    }
}
