//! Compiles the emulator and every kernel, in a plain and a check build, into shared libraries that `src/library.rs`
//! opens. Only what has changed is compiled again.

#[path = "build/compiler.rs"]
mod compiler;
#[path = "build/kernels.rs"]
mod kernels;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process, thread};

use compiler::{Failure, Flavour, Toolchain};

fn main() {
    if let Err(failure) = build() {
        eprintln!("{failure}");
        process::exit(1);
    }
}

fn build() -> Result<(), Failure> {
    let crate_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let toolchain = Toolchain::find(crate_dir.join("emulator"))?;
    let project_kernels = crate_dir.join("../kernels");
    let kernels = kernels::find(&[
        ("kernels", project_kernels.clone()),
        ("simt/tests/kernels", crate_dir.join("tests/kernels")),
    ])?;
    for watched in [
        crate_dir.join("emulator"),
        crate_dir.join("build"),
        crate_dir.join("tests/kernels"),
        project_kernels,
    ] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }

    let mut objects = Vec::new();
    for flavour in Flavour::ALL {
        fs::create_dir_all(out.join(flavour.name())).map_err(|e| Failure::io(&out, e))?;
        for source in toolchain.emulator_sources(flavour)? {
            objects.push((flavour, source));
        }
    }
    let built =
        in_parallel(&objects, |(flavour, source)| toolchain.compile_emulator(*flavour, source, &out))?;
    for flavour in Flavour::ALL {
        let of_flavour =
            objects.iter().zip(&built).filter(|((f, _), _)| *f == flavour).map(|(_, object)| object);
        toolchain.link_emulator(flavour, of_flavour.map(PathBuf::as_path), &out)?;
    }
    let libraries: Vec<_> =
        kernels.iter().flat_map(|kernel| Flavour::ALL.map(|flavour| (flavour, kernel))).collect();
    in_parallel(&libraries, |(flavour, kernel)| toolchain.compile_kernels(*flavour, kernel, &out))?;

    write_list(&out.join("libraries.rs"), &kernels)?;
    println!("cargo::rustc-env=SIMT_LIBRARIES={}", out.display());
    Ok(())
}

/// Does `work` for every job, on as many threads as cargo grants, and stops early at a failure.
fn in_parallel<J: Sync, R: Send>(
    jobs: &[J],
    work: impl Fn(&J) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let threads = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1usize).min(jobs.len());
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, job)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(index).map(|job| (index, job))
                } {
                    let result = work(job);
                    if result.is_err() {
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                    results.lock().expect("no job panics").push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no job panics");
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The names of the kernels' libraries, as a Rust expression.
fn write_list(path: &Path, kernels: &[kernels::Source]) -> Result<(), Failure> {
    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.library.as_str()).collect();
    fs::write(path, format!("&{names:?}\n")).map_err(|e| Failure::io(path, e))
}
