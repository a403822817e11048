//! One execution environment of a function.

use std::fs::OpenOptions;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::api::{self, Event};
use crate::process::{Process, Signal};

/// How long a function has that is invoked without a word about it.
const TIME: Duration = Duration::from_secs(30);
/// How long an answer is waited for after the function's time is over. Lambda would end the process then; here the test
/// decides.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Debug, Clone)]
pub struct FunctionSettings {
    /// The binary, as it would be called `bootstrap` in the function's package.
    pub program: PathBuf,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`. Nothing is limited by it here.
    pub memory_mebibytes: u32,
    /// The function's own variables. The process has these, those of Lambda, and no others.
    pub variables: Vec<(String, String)>,
    /// Where standard output and error are appended; those of this process if none is named.
    pub log: Option<PathBuf>,
}

impl FunctionSettings {
    /// A function of 512 MiB without variables.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), memory_mebibytes: 512, variables: Vec::new(), log: None }
    }

    /// With a variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    fn command(&self, runtime_api: &str) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
            .env("AWS_LAMBDA_FUNCTION_NAME", "emulated")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", self.memory_mebibytes.to_string())
            .env("AWS_LAMBDA_LOG_GROUP_NAME", "emulated")
            .env("AWS_LAMBDA_LOG_STREAM_NAME", "emulated")
            .env("AWS_REGION", "us-east-1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if let Some(log) = &self.log {
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        Ok(command)
    }
}

/// Why an invocation has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum InvokeError {
    /// The function said that it failed.
    #[error("function failed: {0}")]
    Failed(String),
    /// The process ended first: whatever the function did until then is done.
    #[error("function ended before its answer, {0}")]
    Ended(ExitStatus),
    /// No answer came, long after the function's time was over.
    #[error("function did not answer within {0:?}")]
    Unanswered(Duration),
    /// The answer is no JSON.
    #[error("function did not answer with JSON, {0}")]
    NoJson(String),
}

/// A function's process, which takes one event after the other. It is killed when this is dropped.
#[derive(Debug)]
pub struct Function {
    process: Process,
    events: mpsc::Sender<Event>,
    number: AtomicU64,
    started: Instant,
    first_next: watch::Receiver<Option<Instant>>,
    _api: AbortOnDropHandle<()>,
}

impl Function {
    /// Starts the process. It is not waited for: what it is invoked with waits until it asks.
    ///
    /// # Errors
    /// If there is no port, no log or no such program.
    pub async fn start(settings: &FunctionSettings) -> io::Result<Self> {
        let (events, received) = mpsc::channel(1);
        let (asked, first_next) = watch::channel(None);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let router = api::router(received, asked);
        let api = AbortOnDropHandle::new(tokio::spawn(async move {
            // Serving a listener that is bound ends only when it is dropped.
            let _ = axum::serve(listener, router).await;
        }));
        let started = Instant::now();
        let process = Process::start(&mut settings.command(&address)?)?;
        Ok(Self { process, events, number: AtomicU64::new(0), started, first_next, _api: api })
    }

    /// Waits until the process asks for its first event, and gives the time from its start until then: its init time.
    ///
    /// # Errors
    /// If it ends before.
    pub async fn ready(&self) -> Result<Duration, InvokeError> {
        let mut first_next = self.first_next.clone();
        tokio::select! {
            first = first_next.wait_for(Option::is_some) => {
                let first = first.ok().and_then(|first| *first);
                Ok(first.map_or(Duration::ZERO, |first| first - self.started))
            }
            status = self.process.ended() => Err(InvokeError::Ended(status)),
        }
    }

    /// Invokes the function with 30 s of time, and gives what it answers. An environment has one invocation at a time:
    /// another one waits.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke(&self, payload: &Value) -> Result<Value, InvokeError> {
        let said = self.invoke_for(payload, TIME).await?;
        serde_json::from_slice(&said).map_err(|error| InvokeError::NoJson(error.to_string()))
    }

    /// Invokes the function, which has so much time, and gives the bytes of its answer.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke_for(&self, payload: &Value, time: Duration) -> Result<Bytes, InvokeError> {
        self.run(payload, time, true).await
    }

    /// Invokes the function until it hands over its answer, which is then not taken: it believes to be answering for ever.
    /// Whoever [kills](Self::kill) it now kills it between the last thing that it did and its answer.
    ///
    /// # Errors
    /// [`InvokeError`].
    pub async fn invoke_until_answer(&self, payload: &Value, time: Duration) -> Result<Bytes, InvokeError> {
        self.run(payload, time, false).await
    }

    async fn run(&self, payload: &Value, time: Duration, takes_answer: bool) -> Result<Bytes, InvokeError> {
        let id = format!("request-{}", self.number.fetch_add(1, Ordering::Relaxed));
        let (said, answer) = oneshot::channel();
        let event = Event { id, payload: payload.to_string(), time, said, takes_answer };
        let answered = async {
            // Both fail only when the API has ended with the process.
            self.events.send(event).await.ok()?;
            answer.await.ok()
        };
        let limit = time + PATIENCE;
        let said = tokio::select! {
            biased;
            said = answered => said,
            status = self.process.ended() => return Err(InvokeError::Ended(status)),
            () = tokio::time::sleep(limit) => return Err(InvokeError::Unanswered(limit)),
        };
        match said {
            Some(said) => said.map_err(InvokeError::Failed),
            None => Err(InvokeError::Ended(self.process.ended().await)),
        }
    }

    /// SIGKILL, and waits for the end. Gives how the process ended, which may have been before.
    ///
    /// # Errors
    /// If the system cannot send it.
    pub async fn kill(&self) -> io::Result<ExitStatus> {
        self.process.signal(Signal::Kill).await?;
        Ok(self.process.ended().await)
    }

    /// SIGSTOP: the process stands still, as an environment that Lambda froze, and its connections stay open.
    ///
    /// # Errors
    /// If the system cannot send it.
    pub async fn pause(&self) -> io::Result<()> {
        self.process.signal(Signal::Stop).await
    }

    /// SIGCONT: the process goes on.
    ///
    /// # Errors
    /// If the system cannot send it.
    pub async fn go_on(&self) -> io::Result<()> {
        self.process.signal(Signal::Continue).await
    }

    /// The id of the process, to look at it from outside; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Whether the process has not ended.
    pub fn is_alive(&self) -> bool {
        self.process.status().is_none()
    }
}
