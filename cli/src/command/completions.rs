//! `carnax completions`: a script that teaches a shell our arguments.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, out: &mut Output) -> io::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "carnax", &mut script);
        out.bytes(&script)
    }
}
