# What `cmake --install` puts where, and the Debian packages that cpack makes of it: one component a program (docs/packaging.md).
include(GNUInstallDirs)
set(fl_packaging ${CMAKE_CURRENT_LIST_DIR})
# systemd looks for units in lib, also where libraries live in lib64 or lib/x86_64-linux-gnu.
set(FL_UNIT_FOLDER lib/systemd/system CACHE STRING "Where systemd units are installed, relative to the prefix")

# fl_install_program(TARGET COMPONENT [FILE...]): the program; if it is a service also TARGET.service and its example files.
function(fl_install_program target component)
  if(NOT TARGET ${target})
    return()
  endif()
  # A LibTorch that is not the distribution's is found where it was when this was built.
  set_target_properties(${target} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS ${target} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT ${component})
  if(ARGN)
    install(FILES ${fl_packaging}/${target}.service DESTINATION ${FL_UNIT_FOLDER} COMPONENT ${component})
    list(TRANSFORM ARGN PREPEND ${fl_packaging}/examples/ OUTPUT_VARIABLE examples)
    install(FILES ${examples} DESTINATION ${CMAKE_INSTALL_DATADIR}/tributary/examples COMPONENT ${component})
  endif()
endfunction()

fl_install_program(fl-aggregator aggregator server.json experiment.json)
fl_install_program(fl-client client client.json)
fl_install_program(fl tool)

if(FL_WITH_TORCH)
  include(${CMAKE_CURRENT_LIST_DIR}/debian.cmake)
endif()
