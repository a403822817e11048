//! Where the binaries are.
//!
//! `cargo test -p` builds no binaries of other packages, so that those beside a test may be missing or old: then they are
//! built first. What is old is read from the list of sources that cargo writes beside each binary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

const NODE: &str = "carnax-metadata-node";
const FRONTEND: &str = "carnax-frontend";
const COMMAND_LINE: &str = "carnax";
const LAMBDA: &str = "carnax-lambda";
const WOKEN_CONSUMER: &str = "carnax-woken-consumer";

/// Builds of several tests would only wait for each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The two servers.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `carnax-metadata-node`
    pub node: PathBuf,
    /// `carnax-frontend`
    pub frontend: PathBuf,
}

impl Binaries {
    /// Takes them from a folder, as they are.
    ///
    /// # Errors
    /// If one is missing.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "{} is missing: build it first, or name another folder", path.display());
            Ok(path)
        };
        Ok(Self { node: find(NODE)?, frontend: find(FRONTEND)? })
    }

    /// Takes those of this build, and builds them if they are missing or older than their sources.
    ///
    /// # Errors
    /// If they cannot be built.
    pub fn of_this_build() -> Result<Self> {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = folder_of_this_build()?;
        if !(is_fresh(&folder.join(NODE)) && is_fresh(&folder.join(FRONTEND))) {
            build(&["-p", NODE, "-p", FRONTEND, "--bin", NODE, "--bin", FRONTEND])?;
        }
        Self::in_folder(&folder)
    }
}

/// The command line `carnax` of this build, built if it is missing or older than its sources.
///
/// # Errors
/// If it cannot be built.
pub fn command_line() -> Result<PathBuf> {
    binary("carnax-cli", COMMAND_LINE)
}

/// The frontend as a Lambda function, of this build, built if it is missing or older than its sources.
///
/// # Errors
/// If it cannot be built.
pub fn lambda() -> Result<PathBuf> {
    binary(LAMBDA, LAMBDA)
}

/// The example of a consumer as a Lambda function, likewise.
///
/// # Errors
/// If it cannot be built.
pub fn woken_consumer() -> Result<PathBuf> {
    binary(WOKEN_CONSUMER, WOKEN_CONSUMER)
}

fn binary(package: &str, name: &str) -> Result<PathBuf> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let program = folder_of_this_build()?.join(name);
    if !is_fresh(&program) {
        build(&["-p", package, "--bin", name])?;
    }
    ensure!(program.is_file(), "{} is missing", program.display());
    Ok(program)
}

/// An example of the SDK of this build, built if it is missing or older than its sources.
///
/// # Errors
/// If it cannot be built.
pub fn example(name: &str) -> Result<PathBuf> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let example = folder_of_this_build()?.join("examples").join(name);
    if !is_fresh(&example) {
        build(&["-p", "carnax", "--example", name])?;
    }
    ensure!(example.is_file(), "{} is missing", example.display());
    Ok(example)
}

fn folder_of_this_build() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let folder = program.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// Whether the binary is there, is made of this workspace's sources, and is not older than any of them.
fn is_fresh(binary: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let Ok(sources) = std::fs::read_to_string(binary.with_extension("d")) else { return false };
    let Some(built) = changed(binary) else { return false };
    let Some((_, sources)) = sources.split_once(": ") else { return false };
    let is_older = |source: &str| changed(Path::new(source)).is_some_and(|at: SystemTime| at <= built);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let is_ours = |source: &str| workspace.is_some_and(|workspace| Path::new(source).starts_with(workspace));
    sources.split_whitespace().any(is_ours) && sources.split_whitespace().all(is_older)
}

fn build(what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet"]).args(what);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().context("cannot run cargo")?;
    ensure!(status.success(), "cargo could not build {what:?}: {status}");
    Ok(())
}
