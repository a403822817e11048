//! A cluster of real processes on the S3 of a LocalStack: for tests, and to look at.
//!
//! ```text
//! tests ──▶ SDK, command line, HTTP ──▶ carnax-frontend ×2 ──▶ carnax-metadata-node ×3
//!                                              └──▶ LocalStack: one that runs already, or one that is started here
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `python` | the Python environment that LocalStack is installed into, once |
//! | `localstack` | a LocalStack, found or started, and its end |
//! | `templates` | the Terraform templates of `infra/environments/localstack`, and the package of the function |
//! | `stack` | LocalStack, what the templates make in it, and the cluster |
//!
//! Invariants: a LocalStack that is started here ends with whoever started it, however that ends; one that was found is left
//! running. No health page is believed: a LocalStack counts when it has made a bucket.

pub mod localstack;
mod python;
pub mod stack;
pub mod templates;
