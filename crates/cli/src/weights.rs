//! `blemish weights`.

use blemish::backbone::catalogue;
use blemish::core::{Progress, Session};
use blemish::store::Store;
use serde_json::json;

use crate::args::{Args, Weights, WeightsCommand};
use crate::{progress::Bars, say, train};

pub(crate) fn run(args: &Args, command: &Weights, progress: &Bars) -> anyhow::Result<u8> {
    let store = train::store(args);
    match &command.what {
        WeightsCommand::List => {
            let rows: Vec<_> = catalogue::FILES
                .iter()
                .map(|f| json!({"net": f.net, "file": f.name, "bytes": f.bytes, "sha256_prefix": f.sha256_prefix, "present": store.path(f).is_file()}))
                .collect();
            let found: Vec<_> = catalogue::NETS.iter().filter_map(|n| Some((n.id, store.find(n.id)?))).collect();
            if args.json {
                let used: serde_json::Map<_, _> = found.iter().map(|(id, p)| ((*id).to_owned(), json!(p))).collect();
                say::out(&json!({"folder": store.folder(), "files": rows, "used": used}).to_string())?;
                return Ok(say::OK);
            }
            let mut text = format!(" in {}\n", store.folder().display());
            for f in catalogue::FILES {
                let here = if store.path(f).is_file() { "here" } else { "-" };
                text += &format!(" {:<22} {here:<5} {:>7}  {}  ({})\n", f.net, say::size(f.bytes), f.name, f.about);
            }
            for (id, path) in found {
                text += &format!(" {id} uses {}\n", path.display());
            }
            say::out(&text)?;
        }
        WeightsCommand::Pull { name } => {
            let file = Store::published(name)?;
            let config = train::base(args)?;
            let session = Session { progress: progress as &dyn Progress, ..Session::quiet(config.seed) };
            say::note(args.quiet, &format!(" pull   {} ({})", file.url, say::size(file.bytes)));
            let path = store.pull(file, &session)?;
            say::out(&format!(" {} is here and its SHA-256 is as published", path.display()))?;
        }
        WeightsCommand::Import { file } => {
            let path = store.import(file)?;
            say::out(&format!(" imported as {}", path.display()))?;
        }
        WeightsCommand::Check { file } => {
            let all: Vec<_> = match file {
                Some(file) => vec![file.clone()],
                None => catalogue::NETS.iter().filter_map(|n| store.find(n.id)).collect(),
            };
            if all.is_empty() {
                say::out(&format!(" no weights in {}", store.folder().display()))?;
            }
            for path in all {
                let net = store.check(&path)?;
                say::out(&format!(" {} holds usable weights for {net}", path.display()))?;
            }
        }
    }
    Ok(say::OK)
}
