# cpack --config BUILD/CPackConfig.cmake -B OUTPUT: tributary-aggregator, tributary-client and tributary-tools as .deb.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGE_CONTACT "Tributary <tributary@localhost>")
set(CPACK_COMPONENTS_ALL aggregator client tool)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

# The system's own BLAS is 3 to 45 times slower, and another BLAS gives other bits.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS libopenblas0-pthread)
set(CPACK_DEBIAN_AGGREGATOR_PACKAGE_NAME tributary-aggregator)
set(CPACK_DEBIAN_CLIENT_PACKAGE_NAME tributary-client)
set(CPACK_DEBIAN_TOOL_PACKAGE_NAME tributary-tools)
set(CPACK_DEBIAN_TOOL_PACKAGE_SUGGESTS dataset-fashion-mnist)
set(CPACK_COMPONENT_AGGREGATOR_DESCRIPTION "fl-aggregator runs the rounds of a federation over mutual TLS, as a systemd service.")
set(CPACK_COMPONENT_CLIENT_DESCRIPTION "fl-client trains on the data of this machine when an aggregator asks for it, as a systemd service. The data stay here.")
set(CPACK_COMPONENT_TOOL_DESCRIPTION "fl simulates federations, plans them, makes and revokes certificates, and reports on runs.")

if(CMAKE_CROSSCOMPILING)
  # dpkg-shlibdeps asks this machine's package database, which does not know the device's libraries.
  set(CPACK_COMPONENTS_ALL client)
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
  set(CPACK_DEBIAN_CLIENT_PACKAGE_DEPENDS "libc6 (>= 2.36), libstdc++6 (>= 12), libtorch1.13, libssl3 (>= 3.0.0), libsqlite3-0, zlib1g")
else()
  set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
endif()

# Scripts that dpkg runs: the two services differ in their names only.
foreach(component aggregator client)
  set(service fl-${component}.service)
  set(state tributary-${component})
  foreach(script postinst prerm postrm)
    configure_file(${fl_packaging}/${script}.in ${CMAKE_BINARY_DIR}/packaging/${component}/${script} @ONLY
                   FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
    list(APPEND fl_${component}_scripts ${CMAKE_BINARY_DIR}/packaging/${component}/${script})
  endforeach()
endforeach()
set(CPACK_DEBIAN_AGGREGATOR_PACKAGE_CONTROL_EXTRA "${fl_aggregator_scripts}")
set(CPACK_DEBIAN_CLIENT_PACKAGE_CONTROL_EXTRA "${fl_client_scripts}")

include(CPack)
