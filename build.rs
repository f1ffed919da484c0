//! Compiles `kernels/*.cu` into fatbins that `src/cuda/driver.rs` embeds. Only for the feature `cuda`: without it
//! nothing of CUDA is needed or looked for.

#[path = "build/fatbin.rs"]
mod fatbin;
#[path = "build/nvcc.rs"]
mod nvcc;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    if let Err(message) = embed_kernels() {
        // Cargo stops at these.
        message.lines().for_each(|line| println!("cargo::error={line}"));
    }
}

fn embed_kernels() -> Result<(), String> {
    println!("cargo::rerun-if-changed=kernels");
    nvcc::VARIABLES.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
    let nvcc = nvcc::find()?;
    println!("cargo::rerun-if-changed={}", nvcc.path.display());
    if let Some(warning) = nvcc.version_warning() {
        println!("cargo::warning={warning}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let fatbins = fatbin::compile_all(&nvcc, Path::new("kernels"), &out, jobs)?;
    for warning in fatbins.iter().flat_map(|fatbin| &fatbin.warnings) {
        println!("cargo::warning={warning}");
    }
    let table = out.join("fatbins.rs");
    fs::write(&table, fatbin::table(&fatbins)).map_err(|e| format!("{}: {e}", table.display()))
}
