//! One fatbin per kernel file, compiled anew only where something changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use super::nvcc::Nvcc;

/// Machine code for Ampere and Hopper, and PTX for what comes after.
const TARGETS: [&str; 3] =
    ["arch=compute_80,code=sm_80", "arch=compute_90a,code=sm_90a", "arch=compute_80,code=compute_80"];

/// Options of every file; those of one file follow `// nvcc:` in its opening comment.
const OPTIONS: &str = "nvcc-options";

/// A compiled file.
pub struct Fatbin {
    /// Name of the file without `.cu`.
    pub name: String,
    pub path: PathBuf,
    /// What the compiler said that the builder should read.
    pub warnings: Vec<String>,
}

/// Compiles every `.cu` of `kernels` into `out`, at most `jobs` at a time.
pub fn compile_all(nvcc: &Nvcc, kernels: &Path, out: &Path, jobs: usize) -> Result<Vec<Fatbin>, String> {
    let headers = concatenated(&files(kernels, "cuh")?)?;
    let sources = files(kernels, "cu")?;
    let queue = Mutex::new(sources.iter());
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, sources.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let Some(source) = queue.lock().unwrap().next() else { break };
                    let result = compile(nvcc, kernels, source, &headers, out);
                    results.lock().unwrap().push(result);
                }
            });
        }
    });
    let (compiled, failed): (Vec<_>, Vec<_>) =
        results.into_inner().unwrap().into_iter().partition(Result::is_ok);
    if !failed.is_empty() {
        return Err(failed.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("\n"));
    }
    let mut fatbins: Vec<Fatbin> = compiled.into_iter().flatten().collect();
    fatbins.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(fatbins)
}

/// Rust source of `FATBINS`, the name and machine code (an `Image`, defined where this is included) of every file.
pub fn table(fatbins: &[Fatbin]) -> String {
    let rows: String = fatbins
        .iter()
        .map(|fatbin| format!("    ({:?}, &Image(*include_bytes!({:?}))),\n", fatbin.name, fatbin.path))
        .collect();
    format!("static FATBINS: &[(&str, &Image<[u8]>)] = &[\n{rows}];\n")
}

/// What follows `// nvcc:` in the comment that opens a file: options for this file alone.
pub fn file_options(source: &str) -> Vec<String> {
    source
        .lines()
        .take_while(|line| line.starts_with("//"))
        .filter_map(|line| line.strip_prefix("// nvcc:"))
        .flat_map(str::split_whitespace)
        .map(String::from)
        .collect()
}

/// The lines of nvcc's output that cost speed if they go unread: warnings, spills among them, and that ptxas
/// serialised wgmma or put waits into it, which it calls mere information (C75xx).
pub fn notable(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains("warning") || line.contains("(C75")).map(String::from).collect()
}

fn compile(nvcc: &Nvcc, kernels: &Path, source: &Path, headers: &str, out: &Path) -> Result<Fatbin, String> {
    let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let path = out.join(&name).with_extension("fatbin");
    let text = read(source)?;
    let mut command = Command::new(&nvcc.path);
    command.arg("-fatbin").arg("--options-file").arg(kernels.join(OPTIONS)).args(file_options(&text));
    command.args(TARGETS.map(|target| format!("-gencode={target}")));
    command.arg(source).arg("-o").arg(&path);

    // All that the fatbin depends on. It is written last, so that a compilation cut short is done again.
    let options = read(&kernels.join(OPTIONS))?;
    let stamp = format!("{}\n{command:?}\n{options}\n{headers}\n{text}", nvcc.version);
    let stamp_path = path.with_extension("stamp");
    let log_path = path.with_extension("log");
    let fresh = path.is_file() && fs::read_to_string(&stamp_path).is_ok_and(|old| old == stamp);
    if !fresh {
        write(&stamp_path, "")?;
        write(&log_path, &run(&mut command, source)?)?;
        write(&stamp_path, &stamp)?;
    }
    let warnings = notable(&read(&log_path)?).iter().map(|line| format!("{name}.cu: {line}")).collect();
    Ok(Fatbin { name, path, warnings })
}

/// What the compiler said; its failure is an error.
fn run(command: &mut Command, source: &Path) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    let log =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() {
        Ok(log)
    } else {
        Err(format!("nvcc does not compile {}\n{command:?}\n{log}", source.display()))
    }
}

/// The files of a folder with an extension, sorted by name.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    Ok(paths)
}

fn concatenated(paths: &[PathBuf]) -> Result<String, String> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
