"""Where images to be evaluated come from: folders, zip files, arrays, data sets, tensors, generators."""
