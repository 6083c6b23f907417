# Writes OUTPUT: a source file that registers every preset of the list PRESETS, its JSON as a raw string.
set(source "#include \"fl_core/ml/architecture_model.h\"\n\nnamespace {\n")
foreach(preset IN LISTS PRESETS)
  get_filename_component(name "${preset}" NAME_WE)
  file(READ "${preset}" text)
  string(APPEND source "\n[[maybe_unused]] const bool registered_${name} = fl::register_preset(\"${name}\", R\"preset(${text})preset\");\n")
endforeach()
string(APPEND source "\n}  // namespace\n")
file(WRITE "${OUTPUT}" "${source}")
