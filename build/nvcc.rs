//! Where nvcc is.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variables that say where nvcc is.
pub const VARIABLES: [&str; 3] = ["NVCC", "CUDA_HOME", "CUDA_PATH"];

/// The release whose code the drivers from 580 on load, and that `requirements-cuda.txt` pins.
const RELEASE: &str = "release 13.0";

/// A compiler that runs.
pub struct Nvcc {
    pub path: PathBuf,
    /// What it says of itself.
    pub version: String,
}

impl Nvcc {
    fn at(path: &Path) -> Option<Self> {
        let output = Command::new(path).arg("--version").output().ok().filter(|o| o.status.success())?;
        Some(Self { path: path.into(), version: String::from_utf8_lossy(&output.stdout).into_owned() })
    }

    /// What to say of a compiler of another release.
    pub fn version_warning(&self) -> Option<String> {
        (!self.version.contains(RELEASE)).then(|| {
            let path = self.path.display();
            format!("{path} is not of CUDA {RELEASE}: drivers may refuse its PTX, and figures of the docs are not its")
        })
    }
}

/// The first compiler among the candidates that runs.
pub fn find() -> Result<Nvcc, String> {
    let candidates = candidates(|name| env::var_os(name).filter(|value| !value.is_empty()), site_packages);
    candidates.iter().find_map(|path| Nvcc::at(path)).ok_or_else(|| not_found(&candidates))
}

/// Where nvcc may be, best first. One that `NVCC` names is the only one: no other takes its place in silence.
pub fn candidates(
    variable: impl Fn(&str) -> Option<OsString>,
    site_packages: impl FnOnce() -> Vec<PathBuf>,
) -> Vec<PathBuf> {
    if let Some(path) = variable("NVCC") {
        return vec![path.into()];
    }
    let homes =
        VARIABLES[1..].iter().filter_map(|name| variable(name)).map(|home| Path::new(&home).join("bin"));
    let path = variable("PATH").unwrap_or_default();
    // What scripts/nvcc installs, then what `pip install -r requirements-cuda.txt` does.
    let wheels = std::iter::once(PathBuf::from("target/cuda")).chain(site_packages());
    let mut folders: Vec<PathBuf> = homes.chain(env::split_paths(&path)).collect();
    folders.push("/usr/local/cuda/bin".into());
    folders.extend(wheels.map(|packages| packages.join("nvidia/cu13/bin")));
    folders.dedup();
    folders.into_iter().map(|folder| folder.join("nvcc")).collect()
}

/// Where the Python that is active keeps packages; none where there is no Python.
fn site_packages() -> Vec<PathBuf> {
    let code = "import site, sysconfig; \
                print(sysconfig.get_path('purelib'), *site.getsitepackages(), site.getusersitepackages(), sep='\\n')";
    let output = Command::new("python3").args(["-c", code]).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

fn not_found(candidates: &[PathBuf]) -> String {
    let tried: String = candidates.iter().map(|path| format!("\n  {}", path.display())).collect();
    format!(
        "feature `cuda` needs nvcc of CUDA 13.0, and none runs.\n\
         Install it with scripts/nvcc or `pip install -r requirements-cuda.txt`, or set NVCC or CUDA_HOME.\n\
         Tried:{tried}"
    )
}
