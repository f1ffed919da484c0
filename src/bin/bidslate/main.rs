//! The `bidslate` command.

mod allocate;
mod auction;
mod auction_outcome;
mod auction_summary;
mod auction_table;
mod audit;
mod audit_table;
mod catalog;
mod draw;
mod engine_args;
mod files;
mod generate;
mod held_out;
mod import;
mod init_model;
mod inspect;
mod lines;
mod misreports;
mod progress;
mod quantize;
mod replay;
mod request_file;
mod table;
mod tensor_file;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser;

/// Serves end-to-end generative advertising: one model allocates the slots, picks the creatives, sets the
/// payments.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Allocate(allocate::AllocateArgs),
    Auction(auction::AuctionArgs),
    Audit(audit::AuditArgs),
    Catalog(catalog::CatalogArgs),
    Generate(generate::GenerateArgs),
    Misreports(misreports::MisreportArgs),
    Quantize(quantize::QuantizeArgs),
    Import(import::ImportArgs),
    Inspect(inspect::InspectArgs),
    InitModel(init_model::InitModelArgs),
    Replay(replay::ReplayArgs),
    Explain(replay::ExplainArgs),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("BIDSLATE_LOG"))
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .init();
    let done = match Cli::parse().command {
        Command::Allocate(args) => args.run(),
        Command::Auction(args) => args.run(),
        Command::Audit(args) => args.run(),
        Command::Catalog(args) => args.run().map(|()| true),
        Command::Generate(args) => args.run(),
        Command::Misreports(args) => args.run(),
        Command::Quantize(args) => args.run().map(|()| true),
        Command::Import(args) => args.run().map(|()| true),
        Command::Inspect(args) => args.run().map(|()| true),
        Command::InitModel(args) => args.run().map(|()| true),
        Command::Replay(args) => args.run(),
        Command::Explain(args) => args.run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes; a cause whose words those before it end with is left out.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
