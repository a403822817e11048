//! The whole system in one process, from one seed.
mod bucket;
mod checker;
mod history;
mod world;
