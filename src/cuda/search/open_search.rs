//! Launches of `kernels/open_search.cu`: one empty beam for each request.

crate::kernels! {
    in "open_search";

    /// Opens the search of each request.
    fn open_search(
        rules: Ptr<u32>,
        progress: PtrMut<u32>,
        beams: PtrMut<u32>,
        sums: PtrMut<f64>,
        rows: PtrMut<u32>,
        tokens: PtrMut<u32>,
        position: PtrMut<u32>,
        n: u32,
        positions: u32,
        boi: u32,
    );
}
