//! A queue in the memory of this process: for tests, simulation, and the test server of SQS.

mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use carnax_platform::clock::Clock;
use futures::FutureExt;
use futures::future::ready;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Call, Failure, QueueError};
use crate::limits;
use crate::message::{OutgoingMessage, Receipt, Receive, ReceivedMessage, Sent};
use crate::queue::{MessageQueue, QueueFuture};
use state::{State, Stored};

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Those that nobody has.
    pub visible: usize,
    /// Those that were received and whose visibility time is not over.
    pub in_flight: usize,
}

/// Behaves as a queue of SQS, in the order of sending also if it is a standard one, so that a simulation on it is
/// deterministic. Nothing survives the process.
///
/// Visibility and deduplication follow the clock that is handed in; only the wait of a receive is tokio's. A receive that
/// waits while the clock jumps sees it at its next look: when something else happens to the queue, or the wait is over.
///
/// A repeat is answered as what it repeats was. Not imitated: retention, the limits of messages in flight, delays, and deliveries without cause of standard queues.
#[derive(Debug)]
pub struct MemoryQueue {
    name: String,
    clock: Arc<dyn Clock>,
    redrive: Option<Redrive>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct Redrive {
    dead_letters: Arc<MemoryQueue>,
    receives_max: u32,
}

impl MemoryQueue {
    /// An empty queue; a FIFO one if its name ends in `.fifo`.
    ///
    /// # Errors
    /// If the name is none of a queue.
    pub fn new(name: &str, clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        limits::check_queue_name(name).map_err(|failure| failure.on(name, Call::Open))?;
        let state = Mutex::new(State::new(name));
        Ok(Self { name: name.to_owned(), clock, redrive: None, state, changed: Notify::new() })
    }

    /// The same queue, whose messages go to another instead of being delivered more than `receives_max` times.
    ///
    /// # Errors
    /// If one of the two is a FIFO queue and the other is not, or no delivery is allowed.
    pub fn with_dead_letters(
        mut self,
        dead_letters: Arc<Self>,
        receives_max: u32,
    ) -> Result<Self, QueueError> {
        if self.is_fifo() != dead_letters.is_fifo() || receives_max == 0 {
            let reason = "dead letters go to a queue of the same kind, after one delivery at least";
            return Err(Failure::invalid(reason).on(&self.name, Call::Open));
        }
        self.redrive = Some(Redrive { dead_letters, receives_max });
        Ok(self)
    }

    /// Whether it keeps the order of its groups.
    pub fn is_fifo(&self) -> bool {
        limits::is_fifo(&self.name)
    }

    /// How many messages it holds now.
    pub fn depth(&self) -> Depth {
        self.state().depth(self.clock.monotonic())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under this lock, so a poisoned state is still a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_now(&self, messages: &[OutgoingMessage]) -> Result<Vec<Sent>, Failure> {
        limits::check_send(messages, self.is_fifo())?;
        let (now, wall) = (self.clock.monotonic(), self.clock.wall());
        let mut state = self.state();
        let sent = messages.iter().map(|message| state.accept(message, now, wall)).collect();
        drop(state);
        self.changed.notify_waiters();
        Ok(sent)
    }

    /// Takes what can be taken; else says after what time more may be visible.
    fn take_now(
        &self,
        messages_max: usize,
        visibility: Duration,
    ) -> (Vec<ReceivedMessage>, Option<Duration>) {
        let now = self.clock.monotonic();
        let receives_max = self.redrive.as_ref().map_or(u32::MAX, |redrive| redrive.receives_max);
        let mut state = self.state();
        let dead = state.remove_dead(receives_max, now);
        let taken = state.take(messages_max, visibility, now);
        let next = state.next_visible(now);
        drop(state);
        if let Some(redrive) = &self.redrive {
            redrive.dead_letters.bury(dead);
        }
        (taken, next)
    }

    fn bury(&self, dead: Vec<Stored>) {
        if !dead.is_empty() {
            self.state().bury(dead);
            self.changed.notify_waiters();
        }
    }

    async fn wait_and_take(&self, request: Receive) -> Vec<ReceivedMessage> {
        let wait = Duration::from_secs(limits::whole_seconds(request.wait));
        let visibility = Duration::from_secs(limits::whole_seconds(request.visibility));
        let until = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before the look, so that no change between look and wait is missed.
            changed.as_mut().enable();
            let (taken, next) = self.take_now(request.messages_max, visibility);
            let now = Instant::now();
            if !taken.is_empty() || now >= until {
                return taken;
            }
            let look = next.map_or(until, |next| until.min(now + next));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    /// Does something for each entry and tells the receives that wait.
    fn each<E>(
        &self,
        call: Call,
        entries: &[E],
        act: impl Fn(&mut State, &E, Duration) -> Result<(), Failure>,
    ) -> Vec<Result<(), QueueError>> {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let done = entries.iter().map(|entry| act(&mut state, entry, now));
        let done = done.map(|result| result.map_err(|failure| failure.on(&self.name, call))).collect();
        drop(state);
        self.changed.notify_waiters();
        done
    }
}

impl MessageQueue for MemoryQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn send<'a>(&'a self, messages: &'a [OutgoingMessage]) -> QueueFuture<'a, Vec<Result<Sent, QueueError>>> {
        let sent = self.send_now(messages).map_err(|failure| failure.on(&self.name, Call::Send));
        ready(sent.map(|sent| sent.into_iter().map(Ok).collect())).boxed()
    }

    fn receive(&self, request: Receive) -> QueueFuture<'_, Vec<ReceivedMessage>> {
        if let Err(failure) = limits::check_receive(request) {
            return ready(Err(failure.on(&self.name, Call::Receive))).boxed();
        }
        self.wait_and_take(request).map(Ok).boxed()
    }

    fn delete<'a>(&'a self, receipts: &'a [Receipt]) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        let checked = limits::check_receipts(receipts.iter());
        let done = checked.map(|()| self.each(Call::Delete, receipts, State::delete));
        ready(done.map_err(|failure| failure.on(&self.name, Call::Delete))).boxed()
    }

    fn extend<'a>(
        &'a self,
        extensions: &'a [(Receipt, Duration)],
    ) -> QueueFuture<'a, Vec<Result<(), QueueError>>> {
        let checked = limits::check_extensions(extensions);
        let done = checked.map(|()| self.each(Call::Extend, extensions, State::extend));
        ready(done.map_err(|failure| failure.on(&self.name, Call::Extend))).boxed()
    }
}
