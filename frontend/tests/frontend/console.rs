//! Goal: the console's files are served so that a browser runs nothing but them, and none of them makes HTML of what a record contains.
//! Method: every file through the real router; the text of the files. That they work is shown in a real browser (`acceptance`).

use std::collections::BTreeSet;

use http::StatusCode;

use super::support::{Answer, Frontend, start, start_with};

/// The files that the page, and what it names, name.
async fn files(frontend: &Frontend) -> Vec<(String, Answer)> {
    let page = frontend.get("/console").await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let mut wanted = vec!["/console".to_owned()];
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    while let Some(path) = wanted.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = frontend.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} is named and not there");
        let text = text(&answer);
        for (before, base) in [("src=\"", "/"), ("href=\"", "/"), ("from \"./", "/console/")] {
            let named = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            let files = named.filter(|name| !name.starts_with('#'));
            wanted.extend(files.map(|name| format!("{base}{name}")));
        }
        found.push((path, answer));
    }
    found
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn the_browser_runs_only_the_files_of_the_console() {
    let frontend = start().await;
    let files = files(&frontend).await;
    assert!(files.len() > 10, "only {} files", files.len());
    for (path, answer) in &files {
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ] {
            assert!(policy.split("; ").any(|found| found == part), "{path} lacks {part}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
        let media_type = match path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(answer.header("content-type"), media_type, "{path}");
    }
    frontend.stop().await;
}

#[tokio::test]
async fn no_file_makes_html_or_code_of_a_text() {
    let frontend = start().await;
    for (path, answer) in files(&frontend).await {
        let text = text(&answer);
        if path.ends_with(".js") {
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "createContextualFragment",
                "DOMParser",
                "setHTML",
                "srcdoc",
                "eval(",
                "Function(",
                "javascript:",
                "localStorage.setItem(TOKEN",
                "document.cookie",
            ] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
            let elsewhere = text.split(['"', '`']).find(|piece| piece.starts_with("http"));
            assert_eq!(elsewhere, None, "{path} names another place");
        } else {
            let scripts = text.split("<script").skip(1);
            for script in scripts {
                let (tag, rest) = script.split_once('>').unwrap();
                assert!(tag.contains(" src=\""), "{path} has a script in the page");
                assert!(rest.starts_with("</script>"), "{path} has a script in the page");
            }
            assert!(!text.contains("<style"), "{path} has a style in the page");
            let attributes = text.split_whitespace().filter_map(|word| word.split_once('='));
            for (name, _) in attributes {
                let runs = name == "style" || name.starts_with("on");
                assert!(!runs, "{path} has an attribute {name}");
            }
            assert!(!text.contains("@import") && !text.contains("url("), "{path} loads more");
        }
    }
    frontend.stop().await;
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again() {
    let frontend = start().await;
    let mut tags = BTreeSet::new();
    for (path, answer) in files(&frontend).await {
        let tag = answer.header("etag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{path}: {tag}");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"x\", {tag}"), "*".to_owned()] {
            let again = frontend.call("GET", &path, &[("if-none-match", &known)], "").await;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{path} with {known}");
            assert!(again.body.is_empty(), "{path}");
            assert_eq!(again.header("etag"), tag, "{path}");
        }
        let other = frontend.call("GET", &path, &[("if-none-match", "\"x\"")], "").await;
        assert_eq!((other.status, &other.body), (StatusCode::OK, &answer.body), "{path}");
        let head = frontend.call("HEAD", &path, &[], "").await;
        assert_eq!((head.status, head.header("etag")), (StatusCode::OK, tag.as_str()), "{path}");
        assert!(head.body.is_empty(), "{path}");
        assert_eq!(head.header("content-length"), answer.body.len().to_string(), "{path}");
        assert!(tags.insert(tag), "{path} has the tag of another file");
    }
    frontend.stop().await;
}

#[tokio::test]
async fn what_the_console_does_not_have_is_not_found() {
    let frontend = start().await;
    for path in ["/console/nothing.js", "/console/..%2fCargo.toml", "/console/index.html%00", "/console/a/b"]
    {
        let answer = frontend.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        answer.problem("route_not_found");
    }
    let answer = frontend.call("POST", "/console", &[], "{}").await;
    answer.problem("method_not_allowed");
    let moved = frontend.get("/console/").await;
    assert_eq!((moved.status, moved.header("location")), (StatusCode::PERMANENT_REDIRECT, "../console"));
    frontend.stop().await;
}

#[tokio::test]
async fn a_frontend_that_serves_no_api_has_no_console() {
    let frontend = start_with(|settings| settings.roles = vec![carnax_frontend::Role::Maintain]).await;
    frontend.get("/console").await.problem("route_not_found");
    frontend.stop().await;
}
