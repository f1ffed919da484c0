//! Every fault the library reports, one documented variant each.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// A model directory that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file could not be opened, read or mapped.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key of `config.json` is missing, unknown, of the wrong type or out of range.
    #[error("{}: key `{key}`: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, as a path into the JSON.
        key: String,
        /// Its value and what was expected.
        message: String,
    },
    /// A file is not what its name says (truncated, hostile or of another format).
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// `tokenizer.json` is not the vocabulary that `config.json` implies.
    #[error("{}: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Which token has which id, and what was expected.
        message: String,
    },
    /// The weights do not fit the configuration; every offender is listed.
    #[error("{}: {} tensor(s) do not fit config.json{}", path.display(), faults.len(), list(faults))]
    Tensors {
        /// The weights file, or its index.
        path: PathBuf,
        /// One per offending tensor, sorted by name.
        faults: Vec<TensorFault>,
    },
}

impl LoadError {
    /// An [`LoadError::Io`] of `path`.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

/// What is wrong with one tensor of a file.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TensorFault {
    /// The configuration asks for a tensor that the file lacks.
    #[error("missing `{name}`, expected shape {expected:?}")]
    Missing {
        /// Name of the tensor.
        name: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// The file holds a tensor that the configuration knows nothing of.
    #[error("unexpected `{name}` of shape {shape:?}")]
    Unexpected {
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        shape: Vec<usize>,
    },
    /// The tensor's shape is not the one that the configuration implies.
    #[error("`{name}` has shape {shape:?}, expected {expected:?}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Its shape in the file.
        shape: Vec<usize>,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// The tensor's element type is not one that is read here.
    #[error("`{name}` holds {dtype}, expected {expected}")]
    Type {
        /// Name of the tensor.
        name: String,
        /// Its element type in the file.
        dtype: String,
        /// The element types that are read.
        expected: &'static str,
    },
    /// The tensor holds a NaN or an infinity.
    #[error("`{name}` holds {value} at element {index}, expected finite numbers")]
    NotFinite {
        /// Name of the tensor.
        name: String,
        /// Index of the first such element, row-major.
        index: usize,
        /// The value.
        value: f64,
    },
}

impl TensorFault {
    /// Name of the tensor.
    pub fn name(&self) -> &str {
        match self {
            Self::Missing { name, .. }
            | Self::Unexpected { name, .. }
            | Self::Shape { name, .. }
            | Self::Type { name, .. }
            | Self::NotFinite { name, .. } => name,
        }
    }
}

/// A catalog that cannot be loaded or built.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file could not be opened, read, mapped or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name says (truncated, hostile or of another format).
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Columns are missing, unexpected or of the wrong shape or type; every offender is listed.
    #[error("{}: {} column(s) do not fit{}", path.display(), faults.len(), list(faults))]
    Columns {
        /// The file.
        path: PathBuf,
        /// One per offending column, sorted by name.
        faults: Vec<TensorFault>,
    },
    /// A value of a column is out of range.
    #[error("{}: `{column}` row {row}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The row, from 0.
        row: usize,
        /// The value and what was expected.
        message: String,
    },
    /// A line of a JSON-lines file is wrong.
    #[error("{}:{line}: `{field}`: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The field, as a path into the JSON.
        field: String,
        /// Its value and what was expected.
        message: String,
    },
    /// An entry of a JSON file is wrong.
    #[error("{}: entry {entry:?}: {message}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        entry: String,
        /// Its value and what was expected.
        message: String,
    },
    /// Items come as embeddings, but the model holds no quantizer that could turn them into codes.
    #[error("{message}")]
    Quantizer {
        /// What is missing or does not fit.
        message: String,
    },
}

/// A live update of the catalog that was refused; nothing of it was applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("update {index}: `{field}`: {message}")]
pub struct UpdateError {
    /// Index of the offending update in the batch of updates.
    pub index: usize,
    /// The field.
    pub field: &'static str,
    /// Its value and what was expected.
    pub message: String,
}

/// What kind of fault a request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestErrorKind {
    /// The line is not JSON, or a field has the wrong type or an unknown name.
    Parse,
    /// A value is out of its range, not finite, or contradicts another field.
    Invalid,
    /// An item, creative or feature that the catalog or the model does not know.
    Unknown,
    /// The same item twice among the candidates or among the organic items.
    Duplicate,
    /// The request is larger than the engine was built for.
    Limit,
    /// The model's numbers overflowed on this request.
    NotFinite,
    /// The device failed while the request ran on it.
    Device,
}

/// A request that was refused. Its neighbours in the batch are not affected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("`{field}`: {message}")]
pub struct RequestError {
    /// What kind of fault it is.
    pub kind: RequestErrorKind,
    /// The field of the request, as a path into its JSON.
    pub field: String,
    /// The value and what was expected.
    pub message: String,
}

impl RequestError {
    /// A refusal of `field`.
    pub(crate) fn new(kind: RequestErrorKind, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, field: field.into(), message: message.into() }
    }
}

/// A device that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The name is not `cpu` or `cuda:N`.
    #[error("device {0:?} is unknown, expected `cpu` or `cuda:N`")]
    Unknown(String),
    /// This build of the engine holds no CUDA backend.
    #[error("device cuda:{0}: this build of bidslate has no CUDA backend")]
    NoCuda(usize),
    /// The driver's library is not installed.
    #[error("device cuda:{0}: there is no NVIDIA driver here (libcuda is not found)")]
    NoDriver(usize),
    /// The driver is older than the kernels.
    #[error("device cuda:{index}: the driver is of CUDA {found}, expected {needed} or newer")]
    DriverTooOld {
        /// Index of the device asked for.
        index: usize,
        /// CUDA version of the driver.
        found: String,
        /// The oldest that is supported.
        needed: String,
    },
    /// There are fewer devices.
    #[error("device cuda:{index}: the driver knows {count} device(s)")]
    NoDevice {
        /// Index of the device asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The device is older than the kernels.
    #[error("{device}: its compute capability is {found}, expected {needed} or newer")]
    Architecture {
        /// The device.
        device: String,
        /// Compute capability of the device.
        found: String,
        /// The oldest that is supported.
        needed: String,
    },
    /// What was asked for is made for Hopper.
    #[error("{device}: its architecture is {found}, and kernels for Hopper run on sm_90 alone")]
    NotHopper {
        /// The device.
        device: String,
        /// Its architecture.
        found: String,
    },
    /// Device memory does not suffice.
    #[error("{device}: {needed} bytes of device memory are needed, {free} of {total} are free")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        needed: usize,
        /// Bytes free.
        free: usize,
        /// Bytes that the device has.
        total: usize,
    },
    /// The kernels do not take a model of this size.
    #[error("{device}: {key} is {value}, and the kernels take {expected}")]
    Unsupported {
        /// The device.
        device: String,
        /// The key of config.json.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What the kernels take.
        expected: String,
    },
    /// A call to the device failed.
    #[error("{device}: {call}: {message}")]
    Failed {
        /// The device.
        device: String,
        /// What was asked: a kernel by its name, or a copy.
        call: String,
        /// What the device said.
        message: String,
    },
}

/// An engine that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The model directory does not load.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The catalog does not load.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// An option of the builder is missing or out of range.
    #[error("engine option `{option}`: {message}")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value and what was expected.
        message: String,
    },
}
