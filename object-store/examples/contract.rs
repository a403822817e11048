//! Checks whether a server or a folder keeps the contract of an object store, before Carnax is trusted to it:
//!
//! ```text
//! cargo run -p carnax-object-store --features contract --example contract -- s3://bucket/empty-prefix --path-style
//! ```
//!
//! The prefix must be empty; the objects written stay there. A promise that is broken ends the program with a panic that says
//! which one.

use std::error::Error;
use std::time::Instant;

use carnax_object_store::contract::{Extent, check_to};
use carnax_object_store::{ObjectStoreSettings, ObjectStoreUrl, open};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let url: ObjectStoreUrl = arguments.next().unwrap_or_default().parse()?;
    let (mut settings, mut extent) = (ObjectStoreSettings::default(), Extent::default());
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().unwrap_or_default().parse();
        match argument.as_str() {
            "--path-style" => settings.s3_path_style = true,
            "--rounds" => extent.rounds = number()?,
            "--writers" => extent.writers = number()?,
            _ => return Err("options: --path-style, --rounds N, --writers N".into()),
        }
    }
    let store = open(&url, &settings).await?;
    if !store.list("", "", 1).await?.objects.is_empty() {
        return Err("there are objects already; name an empty prefix or folder".into());
    }
    let begun = Instant::now();
    check_to(store, extent).await;
    eprintln!("{url} keeps the contract ({:.1} s)", begun.elapsed().as_secs_f64());
    Ok(())
}
