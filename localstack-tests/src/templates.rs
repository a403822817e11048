//! The Terraform templates of `infra/environments/localstack`, applied to a LocalStack.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::python::{run, target_folder};

const TERRAFORM_MISSING: &str = "Terraform cannot be run: install it, 1.9 or newer (https://developer.hashicorp.com/terraform/install), \
     or leave these tests out with CARNAX_LOCALSTACK=skip";
/// The key of a message of the queue `ordered` is the field `carrier` of its body.
const INGEST: &str = r#"{ordered={topic="ordered",key="json:/carrier"},standard={topic="standard"}}"#;

/// A copy of the templates with a state of its own. What they made ends with [`destroy`](Self::destroy).
#[derive(Debug)]
pub struct Templates {
    folder: TempDir,
    variables: BTreeMap<&'static str, String>,
}

/// What the templates made.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// The bucket.
    pub bucket: String,
    /// What frontends and metadata nodes know it by.
    pub object_store: String,
    /// The function behind HTTP; none before it is made.
    pub function_url: Option<String>,
    /// Those for messages to come in, by name.
    pub queues: BTreeMap<String, Queue>,
    /// Those for wake-ups, by name.
    pub wakeup_queues: BTreeMap<String, Queue>,
    /// The one that is told of maintenance; none before it is made.
    pub maintenance_queue: Option<Queue>,
}

/// A queue.
#[derive(Debug, Clone, Deserialize)]
pub struct Queue {
    /// Where it is called.
    pub url: String,
    /// Where messages go that can be no records.
    pub dead_letter_url: String,
}

#[derive(Deserialize)]
struct Value {
    value: serde_json::Value,
}

impl Templates {
    /// Copies the templates, and packs the function of this build.
    ///
    /// # Errors
    /// If Terraform is missing, or the function cannot be built.
    pub fn new(endpoint: &str, name: &str) -> Result<Self> {
        ensure!(Command::new("terraform").arg("version").output().is_ok(), TERRAFORM_MISSING);
        let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("infra");
        let folder = tempfile::Builder::new().prefix("carnax-templates-").tempdir()?;
        for part in ["modules", "environments"] {
            run(Command::new("cp").arg("-R").arg(infra.join(part)).arg(folder.path()))?;
        }
        let mirror = Command::new(infra.join("scripts").join("provider-mirror.sh")).output()?;
        let mirror = String::from_utf8(mirror.stdout)?;
        let configuration = match mirror.trim() {
            "" => String::new(),
            mirror => {
                format!("provider_installation {{\n filesystem_mirror {{\n path = \"{mirror}\"\n }}\n}}\n")
            }
        };
        fs::write(folder.path().join("terraform.rc"), configuration)?;
        let zip = folder.path().join("function.zip");
        package(&infra, &zip)?;
        let variables = BTreeMap::from([
            ("endpoint", endpoint.to_owned()),
            ("name", name.to_owned()),
            ("lambda_zip", zip.display().to_string()),
            ("architecture", if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }.to_owned()),
            ("ingest", INGEST.to_owned()),
        ]);
        let templates = Self { folder, variables };
        checked(templates.terraform(&["init", "-input=false"])?)?;
        Ok(templates)
    }

    /// Makes the bucket, in which a cluster can begin, and the queues, which it is told of.
    ///
    /// # Errors
    /// If Terraform fails.
    pub fn apply_storage_and_queues(&mut self) -> Result<Outputs> {
        checked(self.with_variables(
            "apply",
            &["-auto-approve", "-target=module.storage", "-target=module.queues"],
        )?)?;
        self.outputs()
    }

    /// Makes everything, for functions that reach the metadata nodes there.
    ///
    /// # Errors
    /// If Terraform fails.
    pub fn apply(&mut self, metadata: &[String]) -> Result<Outputs> {
        self.variables.insert("metadata_addresses", serde_json::to_string(metadata)?);
        checked(self.with_variables("apply", &["-auto-approve"])?)?;
        self.outputs()
    }

    /// Whether another apply would change nothing.
    ///
    /// # Errors
    /// If Terraform fails.
    pub fn is_settled(&self) -> Result<bool> {
        let output = self.with_variables("plan", &["-detailed-exitcode", "-lock=false"])?;
        // 0: nothing to do; 2: something.
        match output.status.code() {
            Some(2) => Ok(false),
            _ => checked(output).map(|_| true),
        }
    }

    /// Takes away all that was made, records included.
    ///
    /// # Errors
    /// If Terraform fails.
    pub fn destroy(&self) -> Result<()> {
        checked(self.with_variables("destroy", &["-auto-approve"])?).map(drop)
    }

    fn outputs(&self) -> Result<Outputs> {
        let output = checked(self.terraform(&["output", "-json"])?)?;
        let mut values: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout)?;
        let mut text = |name: &str| {
            let value = values.remove(name).and_then(|value| value.value.as_str().map(str::to_owned));
            value.with_context(|| format!("the templates have no output {name}"))
        };
        let (bucket, object_store) = (text("bucket")?, text("object_store")?);
        let function_url = text("function_url").ok();
        let mut queues = |name: &str| match values.remove(name) {
            Some(Value { value }) => serde_json::from_value(value).context("queues are not as expected"),
            None => Ok(BTreeMap::new()),
        };
        let (ingest, wakeup_queues) = (queues("queues")?, queues("wakeup_queues")?);
        let maintenance_queue =
            values.remove("maintenance_queue").map(|queue| serde_json::from_value(queue.value));
        Ok(Outputs {
            bucket,
            object_store,
            function_url,
            queues: ingest,
            wakeup_queues,
            maintenance_queue: maintenance_queue.transpose()?,
        })
    }

    fn with_variables(&self, command: &str, arguments: &[&str]) -> Result<Output> {
        let variables: Vec<String> =
            self.variables.iter().map(|(name, value)| format!("-var={name}={value}")).collect();
        let mut all = vec![command, "-input=false"];
        all.extend(arguments);
        all.extend(variables.iter().map(String::as_str));
        self.terraform(&all)
    }

    fn terraform(&self, arguments: &[&str]) -> Result<Output> {
        let root = self.folder.path().join("environments").join("localstack");
        let mut command = Command::new("terraform");
        command
            .arg(format!("-chdir={}", root.display()))
            .args(arguments)
            .env("TF_CLI_CONFIG_FILE", self.folder.path().join("terraform.rc"))
            .env("TF_CLI_ARGS", "-no-color")
            .env("CHECKPOINT_DISABLE", "1");
        command.output().context(TERRAFORM_MISSING)
    }
}

fn checked(output: Output) -> Result<Output> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "terraform ended with {}: {said}", output.status);
    Ok(output)
}

/// Packs the function of this build.
fn package(infra: &Path, zip: &PathBuf) -> Result<()> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut command = Command::new(infra.join("package").join("lambda.sh"));
    run(command.arg(zip).env("PROFILE", profile).env("CARGO_TARGET_DIR", target_folder()?))
}
