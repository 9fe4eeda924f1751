//! `blemish`: learns from pictures of good parts, finds and shows defects in new ones.

mod args;
mod bench;
mod data;
mod doctor;
mod predict;
mod progress;
mod say;
mod test;
mod train;
mod weights;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse();
    let progress = progress::Bars::new(args.quiet);
    let handler = progress.interrupt();
    // Without a handler Ctrl-C ends the program at once; files are still whole or not there.
    let _ = ctrlc::set_handler(move || handler.raise());
    let done = match &args.command {
        Command::Train(command) => train::run(&args, command, &progress),
        Command::Test(command) => test::run(&args, command, &progress),
        Command::Predict(command) => predict::run(&args, command, &progress),
        Command::Bench(command) => bench::run(&args, command, &progress),
        Command::Data(command) => data::run(&args, command, &progress),
        Command::Weights(command) => weights::run(&args, command, &progress),
        Command::Inspect(command) => doctor::inspect(&args, command),
        Command::Config(command) => train::print_config(&args, command),
        Command::Doctor => doctor::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "blemish", &mut text);
            say::out(&String::from_utf8_lossy(&text)).map(|()| say::OK)
        }
    };
    ExitCode::from(say::finish(done))
}
