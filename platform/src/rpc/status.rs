//! Problems as gRPC statuses and back.

use carnax_core::problem::Problem;
use tonic::{Code, Status};

/// The status of a problem. The gRPC code is only for tools: our clients read the problem in the details.
pub(super) fn from_problem(problem: &Problem) -> Status {
    let code = match problem.code.status() {
        400 | 413 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 | 412 => Code::FailedPrecondition,
        410 | 416 => Code::OutOfRange,
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        _ => Code::Internal,
    };
    match rmp_serde::to_vec_named(problem) {
        Ok(details) => Status::with_details(code, problem.to_string(), details.into()),
        Err(error) => Status::internal(format!("problem cannot be encoded: {error}: {problem}")),
    }
}

/// The problem in a status, if a Carnax server put one there.
pub(super) fn to_problem(status: &Status) -> Option<Problem> {
    if status.details().is_empty() {
        return None;
    }
    rmp_serde::from_slice(status.details()).ok()
}
