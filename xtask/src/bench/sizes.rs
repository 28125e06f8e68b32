//! `cargo xtask bench sizes`: the images in a table, with what a machine has to fetch of each.

use anyhow::{Context as _, Result};

use crate::flags::Images;
use crate::oci::layout::Layout;
use crate::plan::{self, ImagePlan, Plan};
use crate::platform::PLATFORMS;
use crate::{files, paths};

const START: &str = "<!-- images: written by `cargo xtask bench sizes --readme` -->";
const END: &str = "<!-- /images -->";

/// Prints the table, and puts it into the README if asked to.
pub fn sizes(readme: bool) -> Result<()> {
    let plan = Plan::new(&Images::all(), &[])?;
    let mut table = String::from(
        "| image | what | base | platforms | KB to download |\n|---|---|---|---|---:|\n",
    );
    for image in &plan.images {
        table.push_str(&row(&plan, image));
        table.extend([" ", &download(&plan, image)?, " |\n"]);
    }
    table.push_str("\nFrom the smallest to the largest platform, compressed.\n");
    if readme {
        files::put_between(&paths::root().join("README.md"), START, END, &table)?;
    }
    print!("{table}");
    Ok(())
}

/// All of a row but the last cell, which only a built image has.
fn row(plan: &Plan, image: &ImagePlan) -> String {
    let chain = plan.chain(&image.name);
    let base = match (plan::base(&chain), chain.as_slice()) {
        (Some(reference), _) => format!("`{reference}`"),
        (None, [.., below, _]) => format!("`{}`", below.name),
        (None, _) => "-".to_string(),
    };
    let names: Vec<_> = image.platforms.iter().map(ToString::to_string).collect();
    let platforms = match names.len() {
        all if all == PLATFORMS.len() => "all nine".to_string(),
        _ => names.join(" ").replace("linux/", ""),
    };
    format!("| `{}` | {} | {base} | {platforms} |", image.name, image.summary)
}

/// What is fetched for one platform: configuration and layers.
fn download(plan: &Plan, image: &ImagePlan) -> Result<String> {
    if plan::base(&plan.chain(&image.name)).is_some() {
        return Ok("its base's and pid1".to_string());
    }
    let what = || format!("cannot measure the image `{}`", image.name);
    let layout = Layout::open(&paths::layout(&image.name)).with_context(what)?;
    let mut sizes = Vec::new();
    for platform in &image.platforms {
        let (_, manifest) = layout.manifest(platform).with_context(what)?;
        let layers: u64 = manifest.layers().iter().map(oci_spec::image::Descriptor::size).sum();
        sizes.push((layers + manifest.config().size()).div_ceil(1024));
    }
    let (least, most) = (sizes.iter().min().copied(), sizes.iter().max().copied());
    Ok(format!("{} to {}", least.unwrap_or_default(), most.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_lists_every_image_as_it_is_defined() {
        let readme = std::fs::read_to_string(paths::root().join("README.md")).unwrap();
        let plan = Plan::new(&Images::all(), &[]).unwrap();
        for image in &plan.images {
            let row = row(&plan, image);
            let remedy = "run `cargo xtask bench sizes --readme`";
            assert!(readme.contains(&row), "README.md has no {row}, {remedy}");
        }
    }
}
