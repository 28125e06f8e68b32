//! `cargo xtask reproduce`: builds again what was published, from the commit it names, and says
//! whether every byte is the same.

mod claim;
mod rebuild;

mod difference;
mod files;
mod released;

use anyhow::{Context as _, Result, bail};
use indicatif::HumanBytes;

use crate::{Context, flags};
use claim::{Claim, Subject};
use difference::{Counts, compare};
use rebuild::Rebuild;

/// Prints a line for everything that was reproduced; what was not is an error, which names the
/// first difference.
pub fn run(context: &Context, flags: &flags::Reproduce) -> Result<()> {
    let read = |written: &String| {
        Claim::read(context, written, flags)
            .with_context(|| format!("cannot reproduce `{written}`"))
    };
    let claims: Vec<_> = flags.references.iter().map(read).collect::<Result<_>>()?;
    let mut revisions: Vec<_> = claims.iter().map(|it| &it.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    let mut faults = Vec::new();
    for revision in revisions {
        let claims: Vec<_> = claims.iter().filter(|it| it.revision == *revision).collect();
        let rebuild = Rebuild::of(context, flags, &claims)?;
        for claim in claims {
            if let Err(err) = reproduce(context, &rebuild, claim) {
                context.interrupt.check()?;
                faults.push(format!("cannot reproduce `{}`: {err:#}", claim.reference()));
            }
        }
    }
    // Each is an error of its own.
    if faults.is_empty() { Ok(()) } else { bail!("{}", faults.join("\nerror: ")) }
}

fn reproduce(context: &Context, rebuild: &Rebuild, claim: &Claim) -> Result<()> {
    let mut lacking = String::new();
    match &claim.subject {
        Subject::Image(image) => {
            let ours = rebuild.image(image, &claim.platforms)?;
            let counts = compare(&image.layout, &ours, &claim.platforms)?;
            let Counts { platforms, layers, files, bytes } = counts;
            context.ui.say(format!(
                "compared {}: the index, {platforms} manifests, {platforms} configurations, \
                 {layers} layers with {files} files ({}): every byte is the same",
                image.name,
                HumanBytes(bytes)
            ));
        }
        Subject::Release(released) => {
            let compared = released.compare(&rebuild.release(released)?)?;
            let bytes = HumanBytes(compared.bytes);
            let count = compared.files;
            context.ui.say(format!("compared {count} files ({bytes}): every byte is the same"));
            if !compared.signatures.is_empty() {
                let names = compared.signatures.join(", ");
                context.ui.warn(format!("not compared, as no build makes signatures: {names}"));
            }
            if !compared.lacking.is_empty() {
                lacking = format!(" without {}, which it lacks", compared.lacking.join(", "));
            }
        }
    }
    context.ui.say(format!("this rests on {}", rebuild.grounds()));
    println!("reproduced {}{}{lacking}", claim.reference(), claim.restriction());
    Ok(())
}
