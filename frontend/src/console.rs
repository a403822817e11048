//! `/console`: the web pages for people, as files that are part of the binary.
//!
//! Everything that the pages show they ask of the public API, with the token of whoever looks: the console may do nothing that its
//! user may not, and knows nothing by itself. So its files hold no data and are served to everybody.
//!
//! The browser is told to run only these scripts and to speak only to where they came from ([`POLICY`]), and never to make HTML of a text
//! (`require-trusted-types-for`), whatever a record contains.

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use carnax_core::error_code::ErrorCode;
use carnax_core::problem::Problem;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::http::problem::Failure;

/// What the browser lets the pages do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of the console.
#[derive(Debug)]
struct Asset {
    name: &'static str,
    media_type: &'static str,
    content: &'static [u8],
}

impl Asset {
    /// By its content: the same in all processes of a build, another where the file is another.
    fn tag(&self) -> HeaderValue {
        let tag = format!("\"{:x}-{:08x}\"", self.content.len(), crc32c::crc32c(self.content));
        HeaderValue::try_from(tag).expect("digits in quotes are a header value")
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal $media_type:expr;)*) => {
        &[$(Asset {
            name: $name,
            media_type: $media_type,
            content: include_bytes!(concat!("console/assets/", $name)),
        },)*]
    };
}

const ASSETS: &[Asset] = assets! {
    "index.html" "text/html; charset=utf-8";
    "style.css" "text/css; charset=utf-8";
    "icon.svg" "image/svg+xml";
    "app.js" SCRIPT;
    "api.js" SCRIPT;
    "dom.js" SCRIPT;
    "format.js" SCRIPT;
    "topics.js" SCRIPT;
    "topic.js" SCRIPT;
    "produce.js" SCRIPT;
    "tail.js" SCRIPT;
    "record.js" SCRIPT;
    "groups.js" SCRIPT;
    "cluster.js" SCRIPT;
    "usage.js" SCRIPT;
    "tokens.js" SCRIPT;
    "shortcuts.js" SCRIPT;
};

/// The page.
pub(crate) async fn page(headers: HeaderMap) -> Result<Response, Failure> {
    serve("index.html", &headers)
}

/// Sends a browser from `/console/` to `/console`, to which the names of the other files are relative.
pub(crate) async fn redirect() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, HeaderValue::from_static("../console"))]).into_response()
}

/// A file that the page needs.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Failure> {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or_else(|| {
        let shown: String = name.chars().take(100).collect();
        Problem::new(ErrorCode::RouteNotFound, format!("the console has no file {shown:?}"))
    })?;
    let tag = asset.tag();
    let mut response = if is_known(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static(asset.media_type))], Body::from(asset.content))
            .into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    for (name, value) in [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in
        [("cross-origin-opener-policy", "same-origin"), ("cross-origin-resource-policy", "same-origin")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Whether the browser has this very file; its tag may come back as a weak one (RFC 9110, section 13.1.2).
fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = known.flat_map(|value| value.split(','));
    tags.any(|known| {
        let known = known.trim();
        known == "*" || known.strip_prefix("W/").unwrap_or(known).as_bytes() == tag.as_bytes()
    })
}
