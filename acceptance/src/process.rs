//! One process of a cluster.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a process may take to end after SIGTERM.
const TERMINATION: Duration = Duration::from_secs(40);

/// A process that can be started again and again with the same flags. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// What is to be run; nothing runs yet. Output of all its lives is appended to `<name>.log` in `logs`.
    pub fn new(
        name: &str,
        program: &Path,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        logs: &Path,
    ) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name: name.to_owned(), program: program.to_owned(), arguments, environment, log, child: None }
    }

    /// Makes it another program with another environment, from its next start on.
    pub fn replace(&mut self, program: &Path, environment: Vec<(String, String)>) {
        (self.program, self.environment) = (program.to_owned(), environment);
    }

    /// What it is called in logs and reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Resident memory, in bytes; none if it does not run, or where the system does not say.
    pub fn resident_bytes(&self) -> Option<u64> {
        let id = self.child.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1_024)
    }

    /// Starts it; the environment holds nothing but what it was made with.
    ///
    /// # Errors
    /// If it runs already or cannot be started.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).context("cannot open a log")?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        tracing::info!(process = self.name, pid = child.id(), "started");
        self.child = Some(child);
        Ok(())
    }

    /// Whether it was started and not ended from here.
    pub fn should_run(&self) -> bool {
        self.child.is_some()
    }

    /// Sends SIGKILL without waiting for the end, so that many can be killed at the same moment.
    ///
    /// # Errors
    /// If it does not run.
    pub fn send_kill(&mut self) -> Result<()> {
        self.check()?;
        let name = &self.name;
        self.child.as_mut().with_context(|| format!("{name} does not run"))?.kill().context("cannot kill")?;
        tracing::info!(process = name, "killed");
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.send_kill()?;
        self.reap();
        Ok(())
    }

    /// Waits for the end of a process that was sent SIGKILL.
    pub fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It was killed: it ends, and how is known.
            let _ = child.wait();
        }
    }

    /// SIGSTOP: it neither runs nor hangs up.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn go_on(&mut self) -> Result<()> {
        self.signal("CONT")
    }

    /// SIGTERM, and waits for it to end as asked.
    ///
    /// # Errors
    /// If it does not end in time, or says that it failed.
    pub async fn terminate(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let started = Instant::now();
        while started.elapsed() < TERMINATION {
            let Some(child) = self.child.as_mut() else { break };
            if let Some(status) = child.try_wait().context("cannot wait for a process")? {
                self.child = None;
                ensure!(status.success(), "{} ended with {status} after SIGTERM", self.name);
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("{} did not end within {TERMINATION:?} of SIGTERM", self.name)
    }

    /// That a process which should run does, with the end of its log if it does not.
    ///
    /// # Errors
    /// If it ended by itself.
    pub fn check(&mut self) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if let Some(status) = child.try_wait().context("cannot look at a process")? {
            self.child = None;
            bail!("{} ended by itself with {status}; its log ends with:\n{}", self.name, self.log_tail());
        }
        Ok(())
    }

    /// Whether a process that should run has ended by itself; from now on it should not.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        let Some(child) = self.child.as_mut() else { return Ok(false) };
        let ended = child.try_wait().context("cannot look at a process")?.is_some();
        if ended {
            self.child = None;
        }
        Ok(ended)
    }

    /// All that it ever wrote.
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Only to our own child, which was not waited for: its id cannot belong to anyone else.
    fn signal(&mut self, signal: &str) -> Result<()> {
        self.check()?;
        let id = self.child.as_ref().with_context(|| format!("{} does not run", self.name))?.id();
        let status = Command::new("sh").args(["-c", &format!("kill -{signal} {id}")]).status();
        ensure!(status.context("cannot run sh")?.success(), "cannot send SIG{signal} to {}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            // If it has ended already there is nothing to do. SIGKILL also ends a process that is paused.
            let _ = child.kill();
        }
        self.reap();
    }
}
