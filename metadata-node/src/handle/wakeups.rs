//! Wake-ups: which queues are told about commits.

use carnax_core::metadata::{
    DeleteWakeup, DeletedWakeup, ListWakeups, PutWakeup, WakeupDescription, WakeupList,
};
use carnax_core::problem::Problem;
use carnax_metadata_state::{Command, Reply, answer};

use super::{Handle, mismatched, reply};

impl Handle {
    pub(crate) async fn put_wakeup(&self, request: PutWakeup) -> Result<WakeupDescription, Problem> {
        reply!(self, Command::PutWakeup(request), WakeupPut)
    }

    pub(crate) async fn delete_wakeup(&self, request: DeleteWakeup) -> Result<DeletedWakeup, Problem> {
        reply!(self, Command::DeleteWakeup(request), WakeupDeleted)
    }

    pub(crate) async fn list_wakeups(&self, request: ListWakeups) -> Result<WakeupList, Problem> {
        let view = self.linearizable().await?;
        self.counted(answer::list_wakeups(&view.state, &request))
    }
}
