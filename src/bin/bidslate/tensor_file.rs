//! Tensors on their way into a safetensors file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use bidslate::model::files::write_tensors;
use safetensors::tensor::{Dtype, TensorView};

/// Named tensors: type, shape and bytes.
#[derive(Default)]
pub struct TensorFile(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

/// A type that tensors are made of.
pub trait Element: bytemuck::NoUninit {
    /// Its name in the file.
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}

impl Element for i64 {
    const DTYPE: Dtype = Dtype::I64;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for f64 {
    const DTYPE: Dtype = Dtype::F64;
}

impl TensorFile {
    /// Whether there is a tensor of that name.
    pub fn holds(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Adds a tensor, row-major.
    pub fn put<T: Element>(&mut self, name: impl Into<String>, shape: &[usize], values: &[T]) {
        let bytes = bytemuck::cast_slice(values).to_vec();
        self.0.insert(name.into(), (T::DTYPE, shape.to_vec(), bytes));
    }

    /// Writes the file: whole, or not at all.
    ///
    /// # Errors
    /// Names the file.
    pub fn write(&self, path: &Path, metadata: Option<HashMap<String, String>>) -> Result<()> {
        let views = self
            .0
            .iter()
            .map(|(name, (dtype, shape, bytes))| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>>>()?;
        write_tensors(path, views, metadata).with_context(|| path.display().to_string())
    }
}
