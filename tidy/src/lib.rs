//! Keeps what compilers do not: sizes of files and functions, arrows between crates, names that stand in the code and in
//! `docs/`. Everything here is a test. Each check is a function from text to complaints, with a bad example beside it that
//! it must find; at the end of each module the check runs over the whole tree.
//!
//! It never builds anything and never reads anything outside the tree.

#[cfg(test)]
mod arrows;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod purity;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod source;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod words;
