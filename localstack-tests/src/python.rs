//! The Python environment that LocalStack is installed into.
//!
//! It is made once, from the versions in `python/requirements.lock`, and made anew when these change. The file `installed` in
//! it is written last and holds what was installed: without it, an installation was cut short.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const REQUIREMENTS: &str = include_str!("../python/requirements.lock");

const EXECUTOR: &str = include_str!("../python/carnax_lambda_executor.py");
/// What makes the executor known to LocalStack: a distribution with an entry point.
const EXECUTOR_ENTRY_POINTS: &str =
    "[localstack.lambda.runtime_executor]\nprocess = carnax_lambda_executor:ProcessExecutorPlugin\n";
const EXECUTOR_METADATA: &str = "Metadata-Version: 2.1\nName: carnax-lambda-executor\nVersion: 1\n";

const WHAT_TO_INSTALL: &str = "LocalStack cannot be started: install Python 3.13 (so that `python3.13` runs, or by `pyenv install 3.13`), or name a \
     LocalStack that runs in LOCALSTACK_ENDPOINT, or leave these tests out with CARNAX_LOCALSTACK=skip";

/// The interpreter of an environment that LocalStack is installed into; installs it if needed, which takes a minute or two.
///
/// # Errors
/// If there is no Python 3.13, or the installation fails.
pub(crate) fn with_localstack() -> Result<PathBuf> {
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let turn = File::create(cache.join("lock")).context("cannot make a lock file")?;
    turn.lock().context("cannot wait for others that install LocalStack")?;

    let environment = cache.join("python");
    let interpreter = environment.join("bin").join("python");
    let installed = environment.join("installed");
    let wanted = format!("{REQUIREMENTS}\n{EXECUTOR_ENTRY_POINTS}\n{EXECUTOR}");
    if fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(interpreter);
    }
    let python = find_python().context(WHAT_TO_INSTALL)?;
    if environment.exists() {
        fs::remove_dir_all(&environment).context("cannot remove an old Python environment")?;
    }
    run(Command::new(python).args(["-m", "venv"]).arg(&environment))?;
    let requirements = cache.join("requirements.lock");
    fs::write(&requirements, REQUIREMENTS).context("cannot write the requirements")?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "-r"];
    run(Command::new(&interpreter).args(pip).arg(&requirements))
        .context("LocalStack cannot be installed from the Python package index")?;
    install_executor(&environment).context("cannot install the executor of functions")?;
    fs::write(&installed, wanted).context("cannot note what was installed")?;
    Ok(interpreter)
}

fn install_executor(environment: &Path) -> Result<()> {
    let packages = environment.join("lib").join("python3.13").join("site-packages");
    fs::write(packages.join("carnax_lambda_executor.py"), EXECUTOR)?;
    let distribution = packages.join("carnax_lambda_executor-1.dist-info");
    fs::create_dir_all(&distribution)?;
    fs::write(distribution.join("METADATA"), EXECUTOR_METADATA)?;
    fs::write(distribution.join("entry_points.txt"), EXECUTOR_ENTRY_POINTS)?;
    Ok(())
}

/// `CARNAX_LOCALSTACK_CACHE`, or a folder beside the folder of this build.
fn cache_folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("CARNAX_LOCALSTACK_CACHE") {
        return Ok(folder.into());
    }
    Ok(target_folder()?.join("localstack"))
}

/// The folder of all builds.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let mut folder = program.parent().context("a program lies in a folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().unwrap_or(folder);
    }
    Ok(folder.parent().unwrap_or(folder).to_owned())
}

/// Python 3.13 by its name, or among the versions of pyenv. A name that is found need not run: pyenv leaves such names behind.
fn find_python() -> Option<PathBuf> {
    let by_name = PathBuf::from("python3.13");
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".pyenv")));
    let versions = pyenv.and_then(|pyenv| fs::read_dir(pyenv.join("versions")).ok());
    let of_pyenv = versions
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin").join("python3.13"));
    std::iter::once(by_name).chain(of_pyenv).find(|python| is_python_3_13(python))
}

fn is_python_3_13(python: &Path) -> bool {
    let output = Command::new(python).arg("--version").output();
    output.is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"Python 3.13."))
}

pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    Ok(())
}
