//! `blemish data`.

use blemish::Error;
use blemish::core::{Progress, Session};
use blemish::datasets::{demo, mvtec};
use serde_json::json;

use crate::args::{Args, Data, DataCommand};
use crate::{progress::Bars, say, train};

pub(crate) fn run(args: &Args, command: &Data, progress: &Bars) -> anyhow::Result<u8> {
    match &command.what {
        DataCommand::List { root } => {
            let known = mvtec::manifest().map_err(Error::from)?;
            let present = if root.is_dir() { mvtec::categories(root).map_err(Error::from)? } else { Vec::new() };
            let here = |name: &str| present.iter().any(|c| c.name == name);
            if args.json {
                let names: Vec<_> = present.iter().map(|c| json!({"name": c.name, "path": c.path})).collect();
                say::out(
                    &json!({"root": root, "present": names, "known": known.keys().collect::<Vec<_>>()}).to_string(),
                )?;
                return Ok(say::OK);
            }
            let mut text = format!(" in {}\n", root.display());
            for (name, counts) in &known {
                let mark = if here(name) { "present" } else { "-" };
                text += &format!(
                    " {name:<12} {mark:<8} {} train, {} good and {} bad test pictures\n",
                    counts.train, counts.test_good, counts.test_bad
                );
            }
            for other in present.iter().filter(|c| !known.contains_key(&c.name)) {
                text += &format!(" {:<12} present  (not of MVTec AD)\n", other.name);
            }
            if present.is_empty() {
                text += &format!("\n nothing is there yet. {}\n", mvtec::FETCH);
            }
            say::out(&text)?;
            Ok(say::OK)
        }
        DataCommand::Check { root } => {
            let reports = mvtec::check(root).map_err(Error::from)?;
            let bad = reports.iter().any(|r| !r.problems.is_empty());
            if args.json {
                say::out(&serde_json::to_string(&reports)?)?;
            } else {
                for r in &reports {
                    let state = if r.problems.is_empty() { "ok" } else { "PROBLEMS" };
                    say::out(&format!(
                        " {:<12} {state:<9} {} train, {} good and {} bad test pictures",
                        r.category, r.found.train, r.found.test_good, r.found.test_bad
                    ))?;
                    for problem in &r.problems {
                        say::out(&format!("   {problem}"))?;
                    }
                }
            }
            Ok(if bad { say::FAILED } else { say::OK })
        }
        DataCommand::Fetch => {
            say::out(&format!("{}\n\n{}", mvtec::FETCH, mvtec::LICENCE))?;
            Ok(say::OK)
        }
        DataCommand::Demo { out, size } => {
            let config = train::base(args)?;
            let spec = demo::DemoSpec { size: *size, seed: config.seed, ..demo::DemoSpec::default() };
            let session = Session { progress: progress as &dyn Progress, ..Session::quiet(config.seed) };
            blemish::Engine::new(&config)?.install(|| demo::write(out, &spec, &session)).map_err(Error::from)?;
            let each = format!("{} good / {} test pictures each", spec.good_train, spec.good_test + spec.bad_test);
            if args.json {
                say::out(&json!({"root": out, "categories": demo::CATEGORIES}).to_string())?;
            } else {
                say::out(&format!(" demo set in {}: {} ({each})", out.display(), demo::CATEGORIES.join(", ")))?;
            }
            Ok(say::OK)
        }
    }
}
