//! The C++ compiler and how it is called.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::kernels::{self, Source};

/// Why the build cannot go on.
pub struct Failure(String);

impl Failure {
    pub fn io(path: &Path, error: io::Error) -> Self {
        Self(format!("{}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.0)
    }
}

/// The two builds of everything.
#[derive(Clone, Copy, PartialEq)]
pub enum Flavour {
    Plain,
    Check,
}

impl Flavour {
    pub const ALL: [Self; 2] = [Self::Plain, Self::Check];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Check => "check",
        }
    }

    /// What instruments the kernels: calls before each access to memory and where behaviour is undefined, and in each
    /// basic block. `emulator/source/check/*_hooks.cpp` defines them. The last flags keep GCC from reading ahead of
    /// the condition under which the source would read, which would look like a read of the kernel.
    fn kernel_flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Check => &[
                "-fsanitize=thread,undefined,float-cast-overflow",
                "-fno-sanitize=vptr",
                "--param",
                "tsan-instrument-func-entry-exit=0",
                "-fsanitize-coverage=trace-pc",
                "-fno-tree-loop-im",
                "-fno-tree-pre",
                "-fno-code-hoisting",
                "-fno-ssa-phiopt",
                "-fno-tree-loop-if-convert",
            ],
        }
    }

    fn kernel_link_flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Check => &["-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset"],
        }
    }

    fn emulator_flags(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Check => &["-DSIMT_CHECK"],
        }
    }
}

/// Flags for everything. Sums are rounded as written, so that every machine gives the same bits.
const COMMON_FLAGS: &[&str] = &[
    "-std=c++20",
    "-O2",
    "-g1",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-gnu-unique",
    "-DSIMT_EMU",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-psabi",
];

/// The compiler, with the emulator's sources.
pub struct Toolchain {
    compiler: cc::Tool,
    emulator: PathBuf,
    machine_flags: Vec<&'static str>,
}

impl Toolchain {
    /// The C++ compiler that the `cc` crate finds (`CXX` chooses another), which must be GCC.
    pub fn find(emulator: PathBuf) -> Result<Self, Failure> {
        let compiler = cc::Build::new()
            .cpp(true)
            .no_default_flags(true)
            .warnings(false)
            .try_get_compiler()
            .map_err(|error| Failure(format!("no C++ compiler: {error}")))?;
        if !compiler.is_like_gnu() || compiler.is_like_clang() {
            let path = compiler.path().display();
            return Err(Failure(format!("{path} is not GCC, whose instrumentation the check build needs")));
        }
        Ok(Self { compiler, emulator, machine_flags: machine_flags() })
    }

    /// The emulator's own `.cpp` files.
    pub fn emulator_sources(&self, flavour: Flavour) -> Result<Vec<PathBuf>, Failure> {
        let mut directories = vec![self.emulator.join("source")];
        if flavour == Flavour::Check {
            directories.push(self.emulator.join("source/check"));
        }
        let mut sources = Vec::new();
        for directory in &directories {
            for entry in fs::read_dir(directory).map_err(|e| Failure::io(directory, e))? {
                let path = entry.map_err(|e| Failure::io(directory, e))?.path();
                if path.extension().is_some_and(|extension| extension == "cpp") {
                    sources.push(path);
                }
            }
        }
        sources.sort();
        Ok(sources)
    }

    fn command(&self) -> Command {
        let mut command = self.compiler.to_command();
        command.args(COMMON_FLAGS).args(&self.machine_flags);
        command.arg("-I").arg(self.emulator.join("include"));
        command
    }

    /// Compiles one source of the emulator and returns the object.
    pub fn compile_emulator(&self, flavour: Flavour, source: &Path, out: &Path) -> Result<PathBuf, Failure> {
        let stem = source.file_stem().unwrap_or_default();
        let object = out.join(flavour.name()).join(stem).with_extension("o");
        let mut command = self.command();
        command.args(flavour.emulator_flags()).arg("-O3").arg("-I").arg(self.emulator.join("source"));
        command.arg("-c").arg(source).arg("-o").arg(&object);
        Step { output: &object, what: &source.display().to_string() }.run_unless_fresh(&mut command)?;
        Ok(object)
    }

    /// Links the objects into the emulator's library.
    pub fn link_emulator<'a>(
        &self,
        flavour: Flavour,
        objects: impl Iterator<Item = &'a Path>,
        out: &Path,
    ) -> Result<(), Failure> {
        let library = emulator_library(flavour, out);
        let mut command = self.compiler.to_command();
        command.args(["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic"]);
        command.arg(format!("-Wl,-soname,{}", file_name(&library)));
        command.args(objects).arg("-o").arg(&library);
        run(&mut command, "the emulator's library").map(drop)
    }

    /// Compiles a `.cu` file into a library with a table of its kernels.
    pub fn compile_kernels(&self, flavour: Flavour, source: &Source, out: &Path) -> Result<(), Failure> {
        let library = out.join(flavour.name()).join(&source.library).with_extension("so");
        let (unit, object) = (library.with_extension("cpp"), library.with_extension("o"));
        let step = Step { output: &object, what: &format!("{} ({} build)", source.shown, flavour.name()) };

        let mut compile = self.command();
        compile.args(flavour.kernel_flags()).args(["-fvisibility=hidden", "-Wno-unused-function"]);
        compile.arg("-c").arg(&unit).arg("-o").arg(&object);
        if library.exists() && step.is_fresh(&compile) {
            return Ok(());
        }
        self.write_unit(&unit, source)?;
        step.run(&mut compile)?;

        // Without the flags of the instrumentation, which would link the sanitizers' libraries.
        let mut link = self.compiler.to_command();
        link.args(["-shared", "-Wl,-z,defs", "-Wl,-Bsymbolic", "-Wl,-rpath,$ORIGIN"]);
        link.args(flavour.kernel_link_flags());
        link.arg(&object).arg(emulator_library(flavour, out)).arg("-o").arg(&library);
        run(&mut link, step.what).map(drop)
    }

    /// Writes what is compiled for a `.cu` file: the file and a table of its kernels.
    fn write_unit(&self, unit: &Path, source: &Source) -> Result<(), Failure> {
        let include = format!("#include \"{}\"\n", source.path.display());
        fs::write(unit, &include).map_err(|e| Failure::io(unit, e))?;
        let mut scan = self.command();
        scan.args(["-DSIMT_SCAN", "-E", "-P"]).arg(unit);
        let preprocessed = run(&mut scan, &source.shown)?;
        let names = kernels::names(&String::from_utf8_lossy(&preprocessed.stdout)).map_err(|name| {
            Failure(format!("{}: kernel `{name}` is not declared extern \"C\"", source.shown))
        })?;
        let entries: Vec<_> = names.iter().map(|name| format!("SIMT_KERNEL({name})")).collect();
        let table = format!("SIMT_KERNELS(\"{}\", {})\n", source.shown, entries.join(", "));
        fs::write(unit, format!("{include}#include \"simt/kernel.h\"\n{table}"))
            .map_err(|e| Failure::io(unit, e))
    }
}

fn emulator_library(flavour: Flavour, out: &Path) -> PathBuf {
    out.join(flavour.name()).join(format!("libsimt_{}.so", flavour.name()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Instructions that this machine has; the tests run where they are built. They change no result.
fn machine_flags() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        return vec!["-mavx2", "-mfma"];
    }
    Vec::new()
}

/// A call of the compiler, which is left out if neither its inputs nor its arguments have changed.
struct Step<'a> {
    output: &'a Path,
    /// What is compiled, for messages.
    what: &'a str,
}

impl Step<'_> {
    fn run_unless_fresh(&self, command: &mut Command) -> Result<(), Failure> {
        if self.is_fresh(command) { Ok(()) } else { self.run(command) }
    }

    fn run(&self, command: &mut Command) -> Result<(), Failure> {
        let stamp = self.output.with_extension("stamp");
        let _ = fs::remove_file(&stamp);
        // Before the dependencies are added: they are no part of what the stamp is made of.
        let arguments = format!("{command:?}");
        let output = run(command.arg("-MMD").arg("-MF").arg(self.dependencies()), self.what)?;
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        fs::write(&stamp, self.hash(&arguments)).map_err(|e| Failure::io(&stamp, e))
    }

    fn is_fresh(&self, command: &Command) -> bool {
        let stamp = fs::read_to_string(self.output.with_extension("stamp"));
        self.output.exists() && stamp.is_ok_and(|stamp| stamp == self.hash(&format!("{command:?}")))
    }

    fn dependencies(&self) -> PathBuf {
        self.output.with_extension("d")
    }

    /// A digest of the arguments and of all files that the last compilation read.
    fn hash(&self, arguments: &str) -> String {
        let mut hasher = DefaultHasher::new();
        arguments.hash(&mut hasher);
        let rule = fs::read_to_string(self.dependencies()).unwrap_or_default().replace("\\\n", " ");
        for path in rule.split_whitespace().skip(1) {
            path.hash(&mut hasher);
            fs::read(path).ok().hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

fn run(command: &mut Command, what: &str) -> Result<Output, Failure> {
    let output = command
        .output()
        .map_err(|error| Failure(format!("{}: {error}", Path::new(command.get_program()).display())))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(Failure(format!("{what} does not compile\n{}", String::from_utf8_lossy(&output.stderr))))
}
