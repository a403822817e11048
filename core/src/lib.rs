//! The words that every part of Carnax speaks, as types.
//!
//! This crate owns ids, offsets, limits, the record batch and segment formats, the partitioner, the error codes, and the
//! request and answer types of the two APIs: [`metadata`] (frontend ↔ metadata node) and [`http`] (client ↔ frontend).
//!
//! It is pure. It does no I/O, reads no clock, draws no random number, spawns nothing and iterates over nothing that is
//! ordered by a hash. What it needs (time, ids) arrives as an argument.
#![warn(missing_docs)]

pub mod access;
pub mod cluster_document;
pub mod error_code;
pub mod http;
pub mod id;
pub mod limits;
pub mod manifest_page;
pub mod metadata;
pub mod name;
pub mod object_key;
pub mod offset;
pub mod partitioner;
pub mod problem;
pub mod quota;
pub mod record;
pub mod request_hash;
pub mod segment;
pub mod time;
pub mod topic;
pub mod usage;
