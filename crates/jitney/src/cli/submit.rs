//! `jitney submit`: one job, and with `--wait` its result; with `--ndjson` a job for each line.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::{PossibleValue, TypedValueParser};

use super::exit::Exit;
use super::failure::Failure;
use super::job;
use super::lane::{self, Attention};
use super::output::Output;
use super::server_url::ServerUrl;
use super::submit_lines::Lines;
use super::submit_results::Results;
use crate::client::{Client, Error, Job, Submit, is_json, parse_id};
use crate::job::{JobId, Payload, Priority, Processor};
use crate::near::nearest;
use crate::units::parse_duration;

/// The most data that is read for one job: far above any server's limit, so that the server's own answer
/// names it.
const DATA_BYTES_MAX: u64 = 256 << 20;

/// When somebody who waits is told that nobody works on the job.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// Submit a job, with --wait print its result; or with --ndjson a job for each line.
#[derive(Args, Debug)]
pub(super) struct SubmitArgs {
    /// Whose job it is: the name that its workers ask for.
    #[arg(value_parser = parse_processor)]
    processor: String,
    /// The job's data, usually JSON: as it is, from a file, or from standard input; without it, null.
    #[arg(value_name = "DATA|@FILE|-")]
    data: Option<String>,
    /// The kind of job inside its processor.
    #[arg(long)]
    group: Option<String>,
    /// How urgent it is; NORMAL if not said.
    #[arg(long, value_parser = priority_parser())]
    priority: Option<Priority>,
    /// Submit a job for each line of a file, or of standard input; each line is one job's data, JSON. Run again, it
    /// submits what it did not before.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["data", "idempotency_key", "id", "content_type"])]
    ndjson: Option<String>,
    /// Write what became of each line of --ndjson into this file, a JSON object a line: its id, or with --wait its
    /// status, and its result or error. Run again, it adds what is not there yet.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What the lines of --ndjson are known by; the file's whole path if not said. Standard input and pipes have no
    /// name: give them one, so that a second run submits nothing twice.
    #[arg(long)]
    name: Option<String>,
    /// Wait so long for the job to end, and print its result: 30s, 5m. With --ndjson for each job, and --out has the
    /// results.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Submitting twice with the same key is submitting once.
    #[arg(long, value_name = "KEY", conflicts_with = "id")]
    idempotency_key: Option<String>,
    /// Your own id for the job, a UUID; submitting it twice is submitting once.
    #[arg(long, value_name = "UUID", value_parser = parse_job_id)]
    id: Option<JobId>,
    /// A key that is kept with the job, a tenant's name say.
    #[arg(long)]
    key: Option<String>,
    /// A name and a value that are kept with the job; can be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// What the data is, if it is not JSON.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    server: ServerUrl,
}

pub(super) async fn run(args: SubmitArgs, output: Output) -> Result<Exit, Failure> {
    check_labels(&args.label)?;
    if let Some(from) = &args.ndjson {
        return submit_lines(&args, from, output).await;
    }
    // Not clap's `requires`, which does not look where DATA excludes --ndjson.
    if args.name.is_some() {
        let message = "`--name` is what the lines of `--ndjson` are known by, and there is no `--ndjson`";
        return Err(Failure::usage(message)
            .hint("--key keeps a name with the job; --idempotency-key makes two submits one"));
    }
    if args.out.is_some() {
        let message = "`--out` is for what became of the lines of `--ndjson`, and there is no `--ndjson`";
        return Err(Failure::usage(message).hint("`--wait 30s` prints the result of one job"));
    }
    let client = args.server.client()?;
    let submit = build(&args)?;
    if let Some(wait) = args.wait {
        let job = submit_and_wait(&args, &client, submit, wait, output).await?;
        return Ok(job::show_result(&job, output));
    }
    let submitted = client.submit(submit).await?;
    if submitted.workers == Some(0) {
        let did_you_mean = submitted.did_you_mean.clone();
        let seen = lane::attention(&client, &args.processor).await;
        note_attention(&args, seen.unwrap_or(Attention::Never { did_you_mean }), output);
    }
    if output.json {
        output.line(submitted.job.json());
    } else {
        output.line(&submitted.job.id.to_string());
    }
    Ok(Exit::Done)
}

/// Waits for the result, and does not keep from whoever waits that nobody works on it.
async fn submit_and_wait(
    args: &SubmitArgs,
    client: &Client,
    submit: Submit,
    wait: Duration,
    output: Output,
) -> Result<Job, Error> {
    let ended = client.submit_and_wait(submit, wait);
    let look = async {
        // Most jobs are done by then.
        tokio::time::sleep((wait / 2).min(LOOK_AFTER)).await;
        if let Some(seen) = lane::attention(client, &args.processor).await {
            note_attention(args, seen, output);
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        job = ended => job,
        job = look => job,
    }
}

/// Says why nobody works on the job, if nobody does.
fn note_attention(args: &SubmitArgs, seen: Attention, output: Output) {
    let processor = &args.processor;
    let why = match seen {
        Attention::Worked => return,
        Attention::CannotStart { worker, why } => {
            format!(
                "worker `{worker}` of `{processor}` cannot start its program ({why}); the job waits for it"
            )
        }
        Attention::NotNow => format!("no worker asks for `{processor}` now; the job waits for one"),
        Attention::Never { did_you_mean } => {
            let hint = did_you_mean.map(|name| format!("; did you mean `{name}`?"));
            let hint = hint.unwrap_or_default();
            format!("no worker has asked for `{processor}` yet; the job waits for one{hint}")
        }
    };
    output.note(&format!("note: {why}"));
}

fn build(args: &SubmitArgs) -> Result<Submit, Failure> {
    let bytes = match args.data.as_deref() {
        None => Bytes::from_static(b"null"),
        Some("-") => read("standard input", std::io::stdin().lock())?,
        Some(data) => match data.strip_prefix('@') {
            Some(path) => read_file(Path::new(path))?,
            None => Bytes::copy_from_slice(data.as_bytes()),
        },
    };
    // What is sent with a type goes as base64, and the server would speak of that.
    if args.content_type.as_deref().is_none_or(is_json)
        && let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
    {
        return Err(Failure::usage(format!("the data is not JSON: {error}")).hint(
            "quote it for the shell ('{\"price\":10}'), or say what it is: --content-type text/plain",
        ));
    }
    let payload = Payload {
        content_type: args.content_type.as_deref().map(Into::into),
        bytes,
    };
    let mut submit = with_options(args, payload);
    if let Some(key) = &args.idempotency_key {
        submit = submit.idempotency_key(key);
    }
    if let Some(id) = args.id {
        submit = submit.id(id);
    }
    Ok(submit)
}

/// A job with the options that all lines share.
fn with_options(args: &SubmitArgs, payload: Payload) -> Submit {
    let mut submit = Submit::payload(&args.processor, payload);
    if let Some(group) = &args.group {
        submit = submit.group(group);
    }
    if let Some(priority) = args.priority {
        submit = submit.priority(priority);
    }
    if let Some(key) = &args.key {
        submit = submit.key(key);
    }
    for (name, value) in &args.label {
        submit = submit.label(name, value);
    }
    submit
}

/// Submits a job for each line.
async fn submit_lines(args: &SubmitArgs, from: &str, output: Output) -> Result<Exit, Failure> {
    if args.wait.is_some() && args.out.is_none() {
        return Err(
            Failure::usage("`--ndjson` with `--wait` needs a file for the results")
                .hint("--out results.ndjson"),
        );
    }
    let job = |bytes| {
        let payload = Payload {
            content_type: None,
            bytes,
        };
        with_options(args, payload)
    };
    let mut lines = Lines {
        // Without a name each line has a key for this run, so that retries submit nothing twice.
        client: args.server.client_for_many()?,
        job: &job,
        name: args.name.clone().map(String::into_bytes),
        length: None,
        wait: args.wait,
        results: None,
        output,
    };
    let input: Box<dyn BufRead> = if from == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let path = Path::new(from);
        let file = open(path)?;
        let about = file.metadata().map_err(|error| unreadable(path, &error))?;
        // A pipe has neither a length nor a name that is its own: the next one may have the same.
        if about.is_file() {
            lines.length = Some(about.len());
            if lines.name.is_none() {
                let whole = path.canonicalize().map_err(|error| unreadable(path, &error))?;
                lines.name = Some(whole.into_os_string().into_encoded_bytes());
            }
        }
        Box::new(BufReader::new(file))
    };
    if let Some(out) = &args.out {
        if lines.name.is_none() {
            let message = "`--out` is gone on with by what the lines are known by, and these have no name";
            return Err(Failure::usage(message).hint("--name NAME gives them one"));
        }
        lines.results = Some(Results::open(out, args.wait.is_some())?);
    }
    // One that is not there at all is named soon, as elsewhere; one that goes away later is waited for.
    if let Err(error @ Error::Unreachable { .. }) = args.server.client()?.info().await {
        return Err(lines.not_begun(error.into()));
    }
    lines.submit(input).await
}

fn open(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::open(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read `{}`: {error}", path.display()))
}

fn read_file(path: &Path) -> Result<Bytes, Failure> {
    let named = format!("`{}`", path.display());
    read(&named, open(path)?)
}

fn read(named: &str, from: impl Read) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    from.take(DATA_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read {named}: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > DATA_BYTES_MAX) {
        return Err(Failure::usage(format!("{named} is larger than 256 MiB"))
            .hint("put it in a store, and a link in the job"));
    }
    Ok(bytes.into())
}

/// The name of a processor.
fn parse_processor(text: &str) -> Result<String, String> {
    let name = Processor::parse(text).map(|_| text.to_owned());
    name.ok_or_else(|| "1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit".to_owned())
}

/// Reads a priority as the API does, in capitals alone, and tells shells which there are.
pub(super) fn priority_parser() -> impl TypedValueParser<Value = Priority> {
    PriorityParser
}

#[derive(Clone)]
struct PriorityParser;

impl TypedValueParser for PriorityParser {
    type Value = Priority;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Priority, clap::Error> {
        parse_priority.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let names = Priority::ALL.map(Priority::name);
        Some(Box::new(names.into_iter().map(PossibleValue::new)))
    }
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    let names = Priority::ALL.map(Priority::name);
    let found = Priority::ALL.into_iter().find(|priority| priority.name() == text);
    found.ok_or_else(|| match nearest(text, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("use one of {}", names.join(", ")),
    })
}

/// An id as it is written.
pub(super) fn parse_job_id(text: &str) -> Result<JobId, String> {
    parse_id(text).ok_or_else(|| "not a UUID".to_owned())
}

/// A label that comes twice would have two values, of which a job keeps one.
fn check_labels(labels: &[(String, String)]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    match labels.iter().find(|(name, _)| !seen.insert(name)) {
        Some((name, _)) => Err(Failure::usage(format!("label `{name}` is given twice"))),
        None => Ok(()),
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write NAME=VALUE".to_owned())
}
