//! The function's process. A task owns it, so that it is signalled only while it was not waited for: until then its id cannot
//! belong to anyone else.

use std::io;
use std::process::ExitStatus;

use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

/// A child process, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    id: Option<u32>,
    orders: mpsc::Sender<Order>,
    ended: watch::Receiver<Option<ExitStatus>>,
    _owner: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Order {
    signal: Signal,
    done: oneshot::Sender<io::Result<()>>,
}

/// What a process is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signal {
    Kill,
    Stop,
    Continue,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// If the system cannot.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let child = command.kill_on_drop(true).spawn()?;
        let id = child.id();
        let (orders, received) = mpsc::channel(1);
        let (tell, ended) = watch::channel(None);
        let owner = AbortOnDropHandle::new(tokio::spawn(own(child, received, tell)));
        Ok(Self { id, orders, ended, _owner: owner })
    }

    /// Sends a signal. A process that has ended takes none, which is no error.
    ///
    /// # Errors
    /// If the system cannot.
    pub(crate) async fn signal(&self, signal: Signal) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        if self.orders.send(Order { signal, done }).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        // The owner tells before it goes, unless it is dropped with us.
        status.unwrap_or_default()
    }

    /// Its id, which belongs to it until it has ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.id.filter(|_| self.status().is_none())
    }

    /// How it ended, if it did.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }
}

async fn own(mut child: Child, mut orders: mpsc::Receiver<Order>, tell: watch::Sender<Option<ExitStatus>>) {
    loop {
        tokio::select! {
            status = child.wait() => {
                tell.send_replace(Some(status.unwrap_or_default()));
                return;
            }
            Some(Order { signal, done }) = orders.recv() => {
                // Nobody may wait for it any more.
                let _ = done.send(send(&mut child, signal).await);
            }
        }
    }
}

async fn send(child: &mut Child, signal: Signal) -> io::Result<()> {
    let (Some(id), name) = (
        child.id(),
        match signal {
            Signal::Kill => return child.start_kill(),
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        },
    ) else {
        return Ok(());
    };
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("cannot send SIG{name}: {status}"))) }
}
