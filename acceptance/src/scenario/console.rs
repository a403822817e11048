//! The console in a real browser, by keyboard alone: a topic is made, a record that would like to be HTML is written and seen as text, the lag of
//! a group falls, and a token shuts everybody out who has none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Sizes;
use crate::api::{Api, Call};
use crate::browser::{Browser, Message, key};
use crate::report::Report;

const TOPIC: &str = "attacks";
const GROUP: &str = "readers";
const ATTACK: &str = r#"<img src=x onerror="window.attacked=1"><script>window.attacked=2</script>"#;
/// Records beside the attack.
const RECORDS: u64 = 10;

pub(super) async fn run(sizes: &Sizes) -> Result<Report> {
    let mut report = Report::new("console");
    let cluster = sizes.cluster(Duration::from_millis(5)).await?;
    let browser = Browser::start().await?;
    let api = Api::new([cluster.frontends[0].address.clone()]);
    browser.open(&format!("http://{}/console", cluster.frontends[0].address)).await?;
    heading(&browser, "Topics").await?;
    for round in 0..sizes.rounds {
        let topic = format!("{TOPIC}-{round}");
        make_topic(&browser, &topic).await?;
        write_attack(&browser).await?;
        see_attack(&browser).await?;
        report.say(format!(
            "{topic} was made and a record with HTML was written by keyboard; it is seen as text"
        ));
        let lags = see_lag_fall(&browser, &api, &topic, &format!("{GROUP}-{round}")).await?;
        report.say(format!("the page of the group showed, without being loaded again, a lag of {lags:?}"));
        go(&browser, "t", "Topics").await?;
    }
    see_other_pages(&browser).await?;
    nothing_went_wrong(&browser.messages().await?)?;
    report.say("the browser had nothing to say: no violation of the policy, no error");
    let tokens = sign_in(&browser).await?;
    report.say(format!(
        "the first token was made in the console, which asked for one from then on; {tokens} is listed"
    ));
    nothing_went_wrong(&browser.messages().await?)?;
    policy_holds(&browser).await?;
    report.say("HTML and scripts that a page is given are refused by the browser, and it says so");
    browser.end().await?;
    cluster.end()?;
    Ok(report)
}

async fn heading(browser: &Browser, words: &str) -> Result<()> {
    let script = format!("return document.querySelector('h1')?.textContent === {}", json!(words));
    browser.wait_for(&format!("the heading {words:?}"), &script).await.map(drop)
}

/// Goes to a page by its keys.
async fn go(browser: &Browser, letter: &str, words: &str) -> Result<()> {
    browser.press(&format!("g{letter}")).await?;
    heading(browser, words).await
}

async fn make_topic(browser: &Browser, topic: &str) -> Result<()> {
    browser.wait_for("a list of topics", "return document.querySelectorAll('tbody tr').length").await?;
    browser.tab_to("Create a topic").await?;
    browser.press(key::ENTER).await?;
    browser.tab_to("Name").await?;
    browser.press(topic).await?;
    browser.press(key::ENTER).await?;
    browser.wait_for("the topic is made", "return document.querySelector('.success')?.textContent").await?;
    browser.tab_to("See its records").await?;
    browser.press(key::ENTER).await?;
    heading(browser, &format!("Records of {topic}")).await?;
    browser
        .wait_for(
            "an empty topic is followed",
            "return document.querySelector('.state').textContent.startsWith('Live')",
        )
        .await?;
    Ok(())
}

async fn write_attack(browser: &Browser) -> Result<()> {
    browser.tab_to("Produce a record").await?;
    browser.press(key::ENTER).await?;
    browser.tab_to("Key").await?;
    browser.press("k").await?;
    browser.tab_to("Value").await?;
    browser.press(ATTACK).await?;
    browser.tab_to("Headers").await?;
    browser.press("from: <b>keyboard</b>").await?;
    browser.tab_to("Produce the record").await?;
    browser.press(key::ENTER).await?;
    let script = "return document.querySelector('.success')?.textContent";
    let said = browser.wait_for("the record is written", script).await?;
    ensure!(said == "The record is in partition 0 at offset 0.", "the page says {said}");
    Ok(())
}

async fn see_attack(browser: &Browser) -> Result<()> {
    let seen = browser
        .wait_for(
            "the record in the live view",
            "return document.querySelector('.records tbody .value')?.textContent",
        )
        .await?;
    ensure!(seen == ATTACK, "the record is shown as {seen}");
    browser.tab_to(ATTACK).await?;
    browser.press(key::ENTER).await?;
    let all = browser
        .wait_for(
            "all of the record",
            "return document.querySelector('dialog pre[aria-label=Value]')?.textContent",
        )
        .await?;
    ensure!(all == ATTACK, "all of the record is shown as {all}");
    let header = browser.ask("return document.querySelector('dialog .headers').textContent").await?;
    ensure!(header == "from: <b>keyboard</b>", "the header is shown as {header}");
    let made = browser.ask("return document.querySelectorAll('main img, dialog img, main script, dialog script, dialog b').length").await?;
    ensure!(made == 0, "{made} elements were made of the record");
    browser.press(key::ESCAPE).await?;
    browser.wait_for("the dialog closes", "return !document.querySelector('dialog')").await?;
    let focused = browser.focused().await?;
    ensure!(focused == ATTACK, "after the dialog {focused:?} has the focus");
    let attacked = browser.ask("return window.attacked ?? null").await?;
    ensure!(attacked == Value::Null, "the record ran: {attacked}");
    Ok(())
}

/// Watches the page of a group while its offsets are committed; gives what it showed.
async fn see_lag_fall(browser: &Browser, api: &Api, topic: &str, group: &str) -> Result<Vec<u64>> {
    let records: Vec<_> = (0..RECORDS).map(|number| json!({"value": number.to_string()})).collect();
    let append = Call::post(format!("/v1/topics/{topic}/records"), &json!({"records": records}))?;
    let _: Value = api.call(0, &append).await?;
    commit(api, topic, group, 0).await?;
    go(browser, "g", "Groups").await?;
    browser
        .wait_for(
            "the group is listed",
            &format!("return document.querySelector('main').textContent.includes({})", json!(group)),
        )
        .await?;
    browser.tab_to(group).await?;
    browser.press(key::ENTER).await?;
    heading(browser, &format!("Group {group}")).await?;
    let mut seen = Vec::new();
    for read in [0, 4, RECORDS, RECORDS + 1] {
        commit(api, topic, group, read).await?;
        let lag = RECORDS + 1 - read;
        let script = format!("return document.getElementById('lag')?.textContent === '{lag}'");
        browser.wait_for(&format!("a lag of {lag}"), &script).await?;
        seen.push(lag);
    }
    Ok(seen)
}

async fn commit(api: &Api, topic: &str, group: &str, offset: u64) -> Result<()> {
    let body = json!({"offsets": [{"topic": topic, "partition": 0, "offset": offset}]});
    let _: Value = api.call(0, &Call::post(format!("/v1/groups/{group}/offsets"), &body)?).await?;
    Ok(())
}

async fn see_other_pages(browser: &Browser) -> Result<()> {
    go(browser, "c", "Cluster").await?;
    browser
        .wait_for("the cluster is well", "return document.querySelector('.health.well')?.textContent")
        .await?;
    let nodes = browser
        .ask("return document.querySelectorAll('table')[0].querySelectorAll('tbody tr').length")
        .await?;
    ensure!(nodes == 3, "the page shows {nodes} metadata nodes");
    go(browser, "u", "Usage and cost").await?;
    browser
        .wait_for("the usage", "return document.querySelector('main').textContent.includes('PUT requests')")
        .await?;
    go(browser, "k", "Access tokens").await?;
    browser.wait_for("no tokens", "return document.querySelector('.empty:not([hidden])')?.textContent.startsWith('There are no tokens')").await?;
    browser.press("?").await?;
    browser.wait_for("the keys", "return document.querySelector('dialog[open] table')").await?;
    browser.press(key::ESCAPE).await?;
    Ok(())
}

/// Makes an administrator's token, is asked for it, shows it, and gives its id as the list shows it.
async fn sign_in(browser: &Browser) -> Result<String> {
    browser.tab_to("Create a token").await?;
    browser.press(key::ENTER).await?;
    browser.tab_to("What it is for").await?;
    browser.press("the console").await?;
    browser.tab_to("On").await?;
    // The last of the list; `e` is where `everything` begins.
    browser.press("e").await?;
    browser.tab_to("Create the token").await?;
    browser.press(key::ENTER).await?;
    let secret = browser
        .wait_for("the token is shown", "return document.querySelector('dialog .secret')?.textContent")
        .await?;
    let secret = secret.as_str().context("a token is text")?.to_owned();
    browser.press(key::ESCAPE).await?;
    browser.wait_for("the dialog closes", "return !document.querySelector('dialog')").await?;
    // The page asks again and again, and is refused as soon as the frontend has heard of the token.
    browser.press("gc").await?;
    heading(browser, "Sign in").await?;
    ensure!(
        !browser.ask("return document.documentElement.textContent").await?.to_string().contains(&secret),
        "the token is still in the page"
    );
    browser.press(&secret).await?;
    browser.press(key::ENTER).await?;
    heading(browser, "Cluster").await?;
    go(browser, "k", "Access tokens").await?;
    let id = browser
        .wait_for("the token is listed", "return document.querySelector('tbody th')?.textContent")
        .await?;
    let id = id.as_str().unwrap_or_default().to_owned();
    ensure!(secret.starts_with(&format!("carnax_{id}_")), "the list shows {id:?}");
    Ok(id)
}

/// The browser notes refusals that the console expects: of whoever has no token.
fn nothing_went_wrong(messages: &[Message]) -> Result<()> {
    let expected = |message: &Message| {
        let said = &message.message;
        message.source == "network" && said.contains("status of 401")
    };
    let wrong: Vec<_> = messages.iter().filter(|message| !expected(message)).collect();
    ensure!(wrong.is_empty(), "the browser says {wrong:?}");
    Ok(())
}

/// What the console never does is refused, and would have been told.
async fn policy_holds(browser: &Browser) -> Result<()> {
    let html = browser.ask("try { document.querySelector('main').innerHTML = '<b>x</b>'; return 'taken' } catch (error) { return error.name }").await?;
    ensure!(html == "TypeError", "HTML of a text was {html}");
    browser.ask("const s = document.createElement('style'); s.textContent = 'main { color: red }'; document.head.append(s)").await?;
    let messages = browser.messages().await?;
    ensure!(nothing_went_wrong(&messages).is_err(), "the browser does not tell of violations: {messages:?}");
    Ok(())
}
