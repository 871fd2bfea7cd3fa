//! The container's check, without a container engine: runs the build that the Dockerfile says, lays its result out
//! as the image would, and starts it in that empty root as the image's user. Also looks at the systemd unit.
//!
//! Not in `ci`: it builds everything once more, for another libc.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::step::{Steps, say, succeeds};

/// The user of the image.
const USER: &str = "65532";

/// Where things are.
struct Places {
    repository: PathBuf,
    /// The image's root.
    image: PathBuf,
    /// Cargo's target directory for this libc.
    target: PathBuf,
}

/// What the Dockerfile says, as far as it is run here.
struct Recipe {
    /// The version of the toolchain.
    toolchain: String,
    /// The command that builds.
    build: String,
}

pub(crate) fn run(root: &Path) -> Result<bool> {
    let out = crate::crash::target()?.join("container");
    let places = Places {
        repository: root.to_owned(),
        image: out.join("image"),
        target: out.join("target"),
    };
    let mut steps = Steps::default();
    let recipe = read(&root.join("Dockerfile"))?;
    let ran = steps.run("recipe", || check(&recipe, root))
        && steps.run("build", || build(&recipe, &places))
        && steps.run("image", || image(&places))
        && steps.run("unit", || units(&places));
    Ok(steps.finish() && ran)
}

fn read(dockerfile: &Path) -> Result<Recipe> {
    let text = fs::read_to_string(dockerfile).context("cannot read the Dockerfile")?;
    recipe(&text)
}

fn recipe(dockerfile: &str) -> Result<Recipe> {
    let joined = dockerfile.replace("\\\n", " ");
    let mut lines = joined.lines();
    let toolchain = lines
        .clone()
        .find_map(|line| line.strip_prefix("FROM rust:")?.split_once('-'))
        .map(|(version, _)| version.to_owned());
    let build = lines
        .find_map(|line| {
            line.strip_prefix("RUN ")
                .filter(|line| line.contains("cargo build"))
        })
        .map(|line| {
            let words = line
                .split_whitespace()
                .filter(|word| !word.starts_with("--mount="));
            words.collect::<Vec<_>>().join(" ")
        });
    Ok(Recipe {
        toolchain: toolchain.context("the Dockerfile builds with no `rust:VERSION-...` image")?,
        build: build.context("the Dockerfile has no RUN with `cargo build`")?,
    })
}

/// The Dockerfile and rust-toolchain.toml name one version, and this machine has what the image installs.
fn check(recipe: &Recipe, root: &Path) -> Result<bool> {
    let file = fs::read_to_string(root.join("rust-toolchain.toml"))?;
    let channel = format!("channel = \"{}\"", recipe.toolchain);
    ensure!(
        file.contains(&channel),
        "the Dockerfile builds with rust {}, rust-toolchain.toml says otherwise",
        recipe.toolchain
    );
    let mut compiler = Command::new("musl-gcc");
    if !succeeds(compiler.arg("--version").stdout(Stdio::null())).unwrap_or(false) {
        bail!("`musl-gcc` is not here: apt-get install musl-tools");
    }
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    succeeds(
        Command::new("rustup")
            .args(["target", "add", &target])
            .current_dir(root),
    )
}

fn build(recipe: &Recipe, places: &Places) -> Result<bool> {
    if places.image.exists() {
        fs::remove_dir_all(&places.image).context("cannot clear the image's root")?;
    }
    fs::create_dir_all(&places.image)?;
    say(&recipe.build);
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", &recipe.build])
        .current_dir(&places.repository)
        .env("RUSTUP_TOOLCHAIN", &recipe.toolchain)
        .env("CARGO_TARGET_DIR", &places.target)
        .env("OUT", &places.image)
        .stdin(Stdio::null());
    succeeds(&mut shell)
}

/// Starts the binary where nothing else is: what it needs beside itself would be missing.
fn image(places: &Places) -> Result<bool> {
    if is_root()? {
        let owner = format!("{USER}:{USER}");
        let mut chown = Command::new("chown");
        ensure!(
            succeeds(chown.args(["-R", &owner]).arg(&places.image))?,
            "cannot chown"
        );
    }
    let refused = inside(places, &["serve"])?
        .env("JITNEY_LISTEN", "0.0.0.0:0")
        .output()
        .context("cannot enter the image's root")?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(2) && said.contains("--no-auth"),
        "a server that all can reach started without a word, or said something else: {said}"
    );
    let mut server = inside(places, &["serve"])?
        .env("JITNEY_LISTEN", "0.0.0.0:0")
        .env("JITNEY_NO_AUTH", "true")
        .stdout(Stdio::piped())
        .spawn()?;
    let served = serve(places, &mut server);
    if served.is_err() {
        // It may have ended by itself.
        drop(server.kill());
    }
    let status = server.wait()?;
    ensure!(served? && status.success(), "the server ended with {status}");
    Ok(true)
}

/// Asks it for its health, and to end.
fn serve(places: &Places, server: &mut Child) -> Result<bool> {
    let stdout = server.stdout.take().context("it has no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let (_, port) = line.trim().rsplit_once(':').context("it said no address")?;
    let healthy = ["health", "health --ready"].iter().all(|command| {
        let arguments: Vec<_> = command.split(' ').collect();
        let asked = inside(places, &arguments)
            .and_then(|mut command| succeeds(command.env("JITNEY_LISTEN", format!("0.0.0.0:{port}"))));
        asked.unwrap_or(false)
    });
    let mut kill = Command::new("kill");
    let told = succeeds(kill.args(["-TERM", &server.id().to_string()]))?;
    Ok(healthy && told)
}

/// The image's binary, in the image's root, as the image's user and with its environment.
fn inside(places: &Places, arguments: &[&str]) -> Result<Command> {
    let mut command = if is_root()? {
        let mut command = Command::new("chroot");
        command
            .arg(format!("--userspec={USER}:{USER}"))
            .arg(&places.image);
        command
    } else {
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                &format!("--map-user={USER}"),
                &format!("--map-group={USER}"),
            ])
            .arg(format!("--root={}", places.image.display()));
        command
    };
    command
        .arg("/jitney")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("JITNEY_DATA", "/data")
        .stdin(Stdio::null());
    Ok(command)
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("cannot run `id`")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// The units are such that systemd understands, and close what they mean to close: as far as these tenths say, of which 0
/// is closed and 100 is open. A worker's program needs more than a server.
fn units(places: &Places) -> Result<bool> {
    Ok(unit(places, "jitney.service", "jitney.service", 20)?
        && unit(
            places,
            "jitney-worker@.service",
            "jitney-worker@orders.service",
            30,
        )?)
}

/// `instance` is what the file is called where systemd looks at it.
fn unit(places: &Places, file: &str, instance: &str, open_max: u32) -> Result<bool> {
    let text = fs::read_to_string(places.repository.join("packaging").join(file))?;
    let here = text.replace(
        "/usr/local/bin/jitney",
        &places.image.join("jitney").display().to_string(),
    );
    ensure!(here != text, "{file} does not start /usr/local/bin/jitney");
    let copy = places.target.join(instance);
    fs::write(&copy, here)?;
    let mut verify = Command::new("systemd-analyze");
    match verify.arg("verify").arg(&copy).status() {
        Ok(status) if !status.success() => return Ok(false),
        Ok(_) => {}
        Err(_) => {
            say(&format!("systemd-analyze is not here: {file} was not looked at"));
            return Ok(true);
        }
    }
    let mut security = Command::new("systemd-analyze");
    succeeds(
        security
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={open_max}"))
            .arg(&copy)
            .stdout(Stdio::null()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_says_what_to_run() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let recipe = read(&root.join("Dockerfile")).unwrap();
        let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
        assert!(toolchain.contains(&recipe.toolchain), "{}", recipe.toolchain);
        assert!(
            recipe.build.starts_with("cargo build --release"),
            "{}",
            recipe.build
        );
        assert!(recipe.build.contains("$OUT/jitney"), "{}", recipe.build);
    }

    #[test]
    fn a_dockerfile_without_a_build_is_an_error() {
        assert!(recipe("FROM rust:1-slim AS build\nRUN true\n").is_err());
        assert!(recipe("FROM scratch\nRUN cargo build\n").is_err());
        let both = recipe(
            "FROM rust:1.2.3-slim\nRUN --mount=type=cache,target=/x \\\n  cargo build \\\n  && true\n",
        )
        .unwrap();
        assert_eq!(
            (both.toolchain.as_str(), both.build.as_str()),
            ("1.2.3", "cargo build && true")
        );
    }
}
