//! Headless Chromium, driven over WebDriver: as much of it as a story about pages needs.
//!
//! Everything that a person does is done with the keyboard. What a page shows is asked with small scripts, which the browser runs for its driver
//! whatever the page's policy says; they change nothing in the page.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;
use crate::wait;

/// How long the browser may take for one thing.
const TIMEOUT: Duration = Duration::from_secs(60);
const DRIVER: &str = "chromedriver";
/// Nothing in a page is further away than this many presses of the tab key.
const TABS_MAX: usize = 80;

/// Keys that are no characters, as WebDriver names them.
pub mod key {
    /// Tab.
    pub const TAB: &str = "\u{E004}";
    /// Enter.
    pub const ENTER: &str = "\u{E007}";
    /// Escape.
    pub const ESCAPE: &str = "\u{E00C}";
    /// The space bar.
    pub const SPACE: &str = " ";
    /// Arrow down.
    pub const DOWN: &str = "\u{E015}";
}

/// A browser with one page. It ends when this is dropped: its driver is killed, and with the pipe to it the browser ends.
#[derive(Debug)]
pub struct Browser {
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    driver: Process,
    _folder: TempDir,
}

/// What the browser has to say about a page.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// How bad it is.
    pub level: String,
    /// Who says so: `network`, `security`, `javascript` and others.
    pub source: String,
    /// What.
    pub message: String,
}

impl Browser {
    /// Starts one.
    ///
    /// # Errors
    /// If there is no `chromedriver` and Chromium, or they do not start.
    pub async fn start() -> Result<Self> {
        let program = find(DRIVER)?;
        let folder = tempfile::tempdir().context("cannot make a folder for the browser")?;
        let home = folder.path().display().to_string();
        // Profiles and caches are in the folder, which is gone with this.
        let mut environment: Vec<_> = ["HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"]
            .map(|name| (name.to_owned(), home.clone()))
            .into();
        environment.push(("PATH".to_owned(), std::env::var("PATH").unwrap_or_default()));
        let mut driver =
            Process::new(DRIVER, &program, vec!["--port=0".to_owned()], environment, folder.path());
        driver.start()?;
        let port = wait::until("chromedriver says on which port it listens", async || {
            driver.check()?;
            let log = driver.log();
            let port = log.split_once("started successfully on port ").map(|(_, rest)| rest);
            Ok(port.and_then(|rest| rest.split_once('.')).map(|(port, _)| port.to_owned()))
        })
        .await?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut browser = Self { client, base: format!("http://127.0.0.1:{port}"), driver, _folder: folder };
        browser
            .open_session()
            .await
            .with_context(|| format!("chromium does not start: {}", browser.driver.log()))?;
        Ok(browser)
    }

    async fn open_session(&mut self) -> Result<()> {
        let arguments = [
            "--headless=new",
            "--remote-debugging-pipe",
            // Its own cage needs rights that a container does not give; it only ever sees pages of this test.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--window-size=1280,900",
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = self.call("POST", "/session", &capabilities).await?;
        let id = session["sessionId"].as_str().context("a session has an id")?;
        self.base = format!("{}/session/{id}", self.base);
        Ok(())
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// If the browser cannot.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.call("POST", "/url", &json!({"url": url})).await.map(drop)
    }

    /// What a script returns.
    ///
    /// # Errors
    /// If it throws, with what.
    pub async fn ask(&self, script: &str) -> Result<Value> {
        self.call("POST", "/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Waits until a script returns something that counts as true, and gives it.
    ///
    /// # Errors
    /// If it never does; says then what the page shows.
    pub async fn wait_for(&self, what: &str, script: &str) -> Result<Value> {
        let seen = wait::until(what, async || {
            let answer = self.ask(script).await?;
            let counts = !matches!(&answer, Value::Null | Value::Bool(false)) && answer != "" && answer != 0;
            Ok(counts.then_some(answer))
        })
        .await;
        if seen.is_err() {
            let shown = self.ask("return location.href + '\\n' + document.body.innerText").await?;
            return seen.with_context(|| format!("the page shows {shown}"));
        }
        seen
    }

    /// Presses keys, one after the other.
    ///
    /// # Errors
    /// If the browser cannot.
    pub async fn press(&self, keys: &str) -> Result<()> {
        let mut actions = Vec::new();
        for pressed in keys.chars() {
            actions.push(json!({"type": "keyDown", "value": pressed.to_string()}));
            actions.push(json!({"type": "keyUp", "value": pressed.to_string()}));
        }
        let body = json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]});
        self.call("POST", "/actions", &body).await.map(drop)
    }

    /// What has the focus, by the words that a person knows it by.
    ///
    /// # Errors
    /// If the browser cannot say.
    pub async fn focused(&self) -> Result<String> {
        let script = "const e = document.activeElement; \
            return e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? (e === document.body ? '' : e.textContent)";
        Ok(self.ask(script).await?.as_str().unwrap_or_default().trim().to_owned())
    }

    /// Presses the tab key until something with these words has the focus.
    ///
    /// # Errors
    /// If nothing of the name can be reached.
    pub async fn tab_to(&self, words: &str) -> Result<()> {
        let mut passed = Vec::new();
        for _ in 0..TABS_MAX {
            self.press(key::TAB).await?;
            let focused = self.focused().await?;
            if focused == words {
                return Ok(());
            }
            passed.push(focused);
        }
        bail!("{words:?} is not reached by the tab key, only {passed:?}")
    }

    /// What the browser has said since it was asked last.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn messages(&self) -> Result<Vec<Message>> {
        let messages = self.call("POST", "/se/log", &json!({"type": "browser"})).await?;
        serde_json::from_value(messages).context("messages of the browser are not understood")
    }

    /// Ends it.
    ///
    /// # Errors
    /// If the browser does not want to.
    pub async fn end(self) -> Result<()> {
        self.call("DELETE", "", &Value::Null).await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(serde_json::to_vec(body)?) };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))?;
        let answered = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) =
            tokio::time::timeout(TIMEOUT, answered).await.context("the browser does not answer")??;
        let mut answer: Value = serde_json::from_slice(&body).context("the browser's answer is not JSON")?;
        ensure!(status.is_success(), "{path}: {}", answer["value"]["message"].as_str().unwrap_or_default());
        Ok(answer["value"].take())
    }
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    found.with_context(|| {
        format!("there is no {program}: install chromium and its driver (Debian: chromium, chromium-driver), or leave this out with CARNAX_BROWSER=skip")
    })
}
